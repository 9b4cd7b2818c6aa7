// The functions of the C library and of C++ that allocate, in front of glibc's own: they take precedence in the program and
// in every library that it loads.

#include "counted.hpp"

#include <link.h>

#include <algorithm>
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
std::array<caller, most_callers> found{};

/// Notes where the code of a loaded object is, in the next free place.
// NOLINTNEXTLINE(misc-const-correctness): the type that dl_iterate_phdr asks for
int add(dl_phdr_info *object, std::size_t, void *place) noexcept {
    std::size_t &used = *static_cast<std::size_t *>(place);
    if (used + 1 == found.size()) return 1;
    caller &own = found[used++];
    own.path = *object->dlpi_name == '\0' ? program_invocation_name : object->dlpi_name;
    own.begin = UINTPTR_MAX;
    own.end = 0;
    for (std::size_t i = 0; i < object->dlpi_phnum; i++) {
        const auto &segment = object->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
        own.begin = std::min<std::uintptr_t>(own.begin, object->dlpi_addr + segment.p_vaddr);
        own.end = std::max<std::uintptr_t>(own.end, object->dlpi_addr + segment.p_vaddr + segment.p_memsz);
    }
    return 0;
}

/// Takes no longer in a library of many symbols, as dladdr does: what is measured meanwhile is not what counts.
void note(const void *from) noexcept {
    if (!counting.load(std::memory_order_relaxed)) return;
    const auto place = reinterpret_cast<std::uintptr_t>(from);
    for (caller &own : found) {
        if ((place < own.begin || place >= own.end) && &own != &found.back()) continue;
        own.count.fetch_add(1, std::memory_order_relaxed);
        return;
    }
}

}  // namespace

void on() noexcept {
    std::size_t used = 0;
    dl_iterate_phdr(add, &used);
    found.back().path = "others";
    counting = true;
}
void off() noexcept { counting = false; }

void clear() noexcept {
    for (caller &own : found) own.count = 0;
}

std::uint64_t total() noexcept {
    std::uint64_t sum = 0;
    for (const caller &own : found) sum += own.count.load(std::memory_order_relaxed);
    return sum;
}
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
