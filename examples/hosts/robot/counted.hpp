// Who allocates: the program's allocator, counted by the library that asks for memory.

#ifndef ROBOT_COUNTED_HPP
#define ROBOT_COUNTED_HPP

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace counted {

/// Allocations that were asked for by one shared object, or by the program itself.
struct caller {
    /// Where its code is.
    std::uintptr_t begin, end;
    const char *path;
    std::atomic<std::uint64_t> count;
};

/// More libraries than a program has; what is not among them is counted by the last.
constexpr std::size_t most_callers = 128;

/// Starts counting on this thread and all others, by the libraries that are loaded now, or stops.
void on() noexcept;
void off() noexcept;

/// Sets all counts to 0; while nothing is counted.
void clear() noexcept;

/// Allocations in all.
std::uint64_t total() noexcept;

/// The counts by caller; unused places have the count 0.
const std::array<caller, most_callers> &callers() noexcept;

}  // namespace counted

#endif
