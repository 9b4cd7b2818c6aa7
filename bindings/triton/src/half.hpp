// Numbers of 16 bits, for a served model that declares them.

#ifndef BESPOKE_TRITON_HALF_HPP
#define BESPOKE_TRITON_HALF_HPP

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bespoke.hpp"
#include "triton.hpp"

namespace bespoke_triton {

/// `count` numbers as FP16 or BF16, rounded to nearest, ties to even.
std::vector<std::uint16_t> to_half(const float *numbers, std::size_t count, TRITONSERVER_DataType type);

/// FP16 or BF16 in a tensor.
inline DLDataType half_type(TRITONSERVER_DataType type) {
    return {static_cast<std::uint8_t>(type == TRITONSERVER_TYPE_BF16 ? kDLBfloat : kDLFloat), 16, 1};
}

/// `count` numbers of FP16 or BF16 as they are.
void from_half(const std::uint16_t *halves, std::size_t count, TRITONSERVER_DataType type, float *into);

}  // namespace bespoke_triton

#endif
