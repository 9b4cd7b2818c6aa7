#include "half.hpp"

#include <cstring>

namespace bespoke_triton {

namespace {

std::uint32_t bits_of(float number) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &number, sizeof bits);
    return bits;
}

float float_of(std::uint32_t bits) {
    float number = 0;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

std::uint16_t to_bf16(float number) {
    const std::uint32_t bits = bits_of(number);
    // A NaN stays one.
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>(bits >> 16U | 0x40U);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + (bits >> 16U & 1U)) >> 16U);
}

std::uint16_t to_fp16(float number) {
    const std::uint32_t bits = bits_of(number), sign = bits >> 16U & 0x8000U, size = bits & 0x7FFFFFFFU;
    std::uint32_t half = 0;
    if (size > 0x7F800000U) {
        half = 0x7E00U;
    } else if (size >= 0x477FF000U) {
        // From 65520 on the nearest is an infinity.
        half = 0x7C00U;
    } else if (size < 0x38800000U) {
        // Below 2^-14 numbers of FP16 are multiples of 2^-24, as those of FP32 from 0.5 to 1 are: the sum rounds.
        half = bits_of(float_of(size) + 0.5F) - bits_of(0.5F);
    } else {
        // The exponent's bias is 15 in place of 127; 13 bits of the mantissa go.
        half = (size - (112U << 23U) + 0xFFFU + (size >> 13U & 1U)) >> 13U;
    }
    return static_cast<std::uint16_t>(sign | half);
}

float from_fp16(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000U) << 16U, size = half & 0x7FFFU;
    // As an FP32 with its bias the number is 2^112 times too small; infinities and NaNs have the greatest exponent.
    const float number = size < 0x7C00U ? float_of(size << 13U) * 0x1p112F : float_of(size << 13U | 0x7F800000U);
    return float_of(bits_of(number) | sign);
}

}  // namespace

std::vector<std::uint16_t> to_half(const float *numbers, std::size_t count, TRITONSERVER_DataType type) {
    std::vector<std::uint16_t> halves(count);
    for (std::size_t i = 0; i < count; i++)
        halves[i] = type == TRITONSERVER_TYPE_BF16 ? to_bf16(numbers[i]) : to_fp16(numbers[i]);
    return halves;
}

void from_half(const std::uint16_t *halves, std::size_t count, TRITONSERVER_DataType type, float *into) {
    for (std::size_t i = 0; i < count; i++)
        into[i] = type == TRITONSERVER_TYPE_BF16 ? float_of(std::uint32_t{halves[i]} << 16U) : from_fp16(halves[i]);
}

}  // namespace bespoke_triton
