// Every number of 16 bits there and back, and what lies between two of them to the nearest, ties to even.

#include "half.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace {

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            std::fprintf(stderr, "%s:%d: %04x %s\n", __FILE__, __LINE__, half, #condition); \
            std::exit(1);                                                                   \
        }                                                                                   \
    } while (0)

float wide(std::uint16_t half, TRITONSERVER_DataType type) {
    float number = 0;
    bespoke_triton::from_half(&half, 1, type, &number);
    return number;
}

std::uint16_t narrow(float number, TRITONSERVER_DataType type) { return bespoke_triton::to_half(&number, 1, type)[0]; }

void check(TRITONSERVER_DataType type, std::uint16_t infinity) {
    for (unsigned number = 0; number <= 0xFFFFU; number++) {
        const auto half = static_cast<std::uint16_t>(number);
        const float own = wide(half, type);
        if ((half & 0x7FFFU) > infinity) {
            CHECK(std::isnan(own) && std::isnan(wide(narrow(own, type), type)));
            continue;
        }
        CHECK(narrow(own, type) == half);
        if ((half & 0x7FFFU) == infinity) {
            CHECK(std::isinf(own));
            continue;
        }
        const auto next = static_cast<std::uint16_t>(half + 1U);
        if ((next & 0x7FFFU) == infinity) continue;
        const float after = wide(next, type), middle = own / 2 + after / 2;
        CHECK(narrow(middle, type) == (half % 2 == 0 ? half : next));
        CHECK(narrow(std::nextafter(middle, own), type) == half);
        CHECK(narrow(std::nextafter(middle, after), type) == next);
    }
}

}  // namespace

int main() {
    const std::uint16_t half = 0x3C00U;
    CHECK(wide(half, TRITONSERVER_TYPE_FP16) == 1.0F && wide(0x3F80U, TRITONSERVER_TYPE_BF16) == 1.0F);
    CHECK(wide(0x7BFFU, TRITONSERVER_TYPE_FP16) == 65504.0F && wide(1U, TRITONSERVER_TYPE_FP16) == 0x1p-24F);
    CHECK(narrow(65519.0F, TRITONSERVER_TYPE_FP16) == 0x7BFFU && narrow(65520.0F, TRITONSERVER_TYPE_FP16) == 0x7C00U);
    check(TRITONSERVER_TYPE_FP16, 0x7C00U);
    check(TRITONSERVER_TYPE_BF16, 0x7F80U);
    return 0;
}
