// The input tensors of a request, checked.

#ifndef BESPOKE_TRITON_INPUTS_HPP
#define BESPOKE_TRITON_INPUTS_HPP

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "device.hpp"
#include "triton.hpp"

namespace bespoke_triton {

/// Every tensor has a row for each order of the request; under batching that is Triton's batch.
class inputs {
public:
    /// `place` reads what lies in GPU memory, which without it is refused.
    inputs(TRITONBACKEND_Request *request, const device *place);

    /// Rows of the request: 1 where it gives no tensor at all.
    std::size_t rows() const noexcept { return rows_; }

    /// Whether the request gives the tensor.
    bool has(const std::string &name) const { return tensors_.count(name) != 0; }

    /// The numbers of a tensor, `[rows, shape...]`; nothing where it is not given.
    std::optional<std::vector<float>> floats(const std::string &name, const std::vector<std::int64_t> &shape) const;
    /// Writes the numbers of such a tensor, which is given, into memory of `place`, or the host's without it.
    void floats_into(float *numbers, const std::string &name, const std::vector<std::int64_t> &shape) const;
    /// The numbers of a tensor `[rows, 1]`.
    std::optional<std::vector<std::int64_t>> integers(const std::string &name) const;
    std::optional<std::vector<std::string>> texts(const std::string &name) const;

    /// The shape of a tensor's rows.
    std::optional<std::vector<std::int64_t>> shape(const std::string &name) const;
    /// The bytes of a tensor of this type and shape, row after row.
    std::optional<std::vector<char>> bytes(const std::string &name, TRITONSERVER_DataType type,
                                           const std::vector<std::int64_t> &shape) const;

private:
    struct tensor {
        TRITONBACKEND_Input *handle;
        TRITONSERVER_DataType type;
        std::vector<std::int64_t> shape;
        std::uint32_t buffers;
    };

    /// A tensor of this type and shape; nullptr where it is not given.
    const tensor *find(const std::string &name, TRITONSERVER_DataType type,
                       const std::vector<std::int64_t> &shape) const;
    /// Calls `take(data, bytes, whether they lie in GPU memory)` for each part of a tensor.
    template <class Take>
    void each_buffer(const tensor &own, const std::string &name, Take take) const;

    const device *place_;
    std::size_t rows_ = 1;
    std::map<std::string, tensor> tensors_;
};

}  // namespace bespoke_triton

#endif
