// The functions of the C library and of C++ that allocate, in front of glibc's own: they take precedence in the program and
// in every library that it loads.

#include "counted.hpp"

#include <dlfcn.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

// NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp): glibc's names
extern "C" {
void *__libc_malloc(std::size_t size);
void *__libc_calloc(std::size_t count, std::size_t size);
void *__libc_realloc(void *memory, std::size_t size);
void *__libc_memalign(std::size_t alignment, std::size_t size);
}
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp)

namespace counted {
namespace {

std::atomic<bool> counting{false};
std::atomic<std::uint64_t> all{0};
std::atomic_flag taken = ATOMIC_FLAG_INIT;
std::array<caller, most_callers> found{};

void note(const void *from) noexcept {
    if (!counting.load(std::memory_order_relaxed)) return;
    all.fetch_add(1, std::memory_order_relaxed);
    Dl_info object{};
    if (dladdr(from, &object) == 0) return;
    while (taken.test_and_set(std::memory_order_acquire)) {}
    for (caller &own : found) {
        if (own.count != 0 && own.base != object.dli_fbase) continue;
        own = {object.dli_fbase, object.dli_fname, own.count + 1};
        break;
    }
    taken.clear(std::memory_order_release);
}

}  // namespace

void on() noexcept { counting = true; }
void off() noexcept { counting = false; }

void clear() noexcept {
    all = 0;
    found = {};
}

std::uint64_t total() noexcept { return all; }
const std::array<caller, most_callers> &callers() noexcept { return found; }

}  // namespace counted

extern "C" {

void *malloc(std::size_t size) {
    counted::note(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(std::size_t count, std::size_t size) {
    counted::note(__builtin_return_address(0));
    return __libc_calloc(count, size);
}

void *realloc(void *memory, std::size_t size) {
    counted::note(__builtin_return_address(0));
    return __libc_realloc(memory, size);
}

void *memalign(std::size_t alignment, std::size_t size) {
    counted::note(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(std::size_t alignment, std::size_t size) {
    counted::note(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, std::size_t alignment, std::size_t size) {
    counted::note(__builtin_return_address(0));
    *memory = __libc_memalign(alignment, size);
    return *memory == nullptr ? ENOMEM : 0;
}
}

void *operator new(std::size_t size) {
    counted::note(__builtin_return_address(0));
    if (void *memory = __libc_malloc(size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}

void *operator new(std::size_t size, std::align_val_t alignment) {
    counted::note(__builtin_return_address(0));
    if (void *memory = __libc_memalign(static_cast<std::size_t>(alignment), size == 0 ? 1 : size)) return memory;
    throw std::bad_alloc();
}

void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
