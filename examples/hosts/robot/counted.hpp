// Who allocates: the program's allocator, counted by the library that asks for memory.

#ifndef ROBOT_COUNTED_HPP
#define ROBOT_COUNTED_HPP

#include <array>
#include <cstddef>
#include <cstdint>

namespace counted {

/// Allocations that were asked for by one shared object, or by the program itself.
struct caller {
    const void *base;
    const char *path;
    std::uint64_t count;
};

/// More libraries than a program has.
constexpr std::size_t most_callers = 64;

/// Starts counting on this thread and all others, or stops.
void on() noexcept;
void off() noexcept;

/// Sets all counts to 0.
void clear() noexcept;

/// Allocations in all.
std::uint64_t total() noexcept;

/// The counts by caller; unused places have the count 0.
const std::array<caller, most_callers> &callers() noexcept;

}  // namespace counted

#endif
