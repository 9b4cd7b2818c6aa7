#include "device.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

namespace bespoke_triton {

namespace {

constexpr const char *NAME = "libbespoke_cuda.so";

void must(int answer, const char *doing) {
    if (answer != 0)
        throw failure(TRITONSERVER_ERROR_INTERNAL,
                      std::string(doing) + ": libbespoke_cuda answered " + std::to_string(answer));
}

template <class Function>
void look_up(void *library, const char *name, Function &function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    if (function == nullptr)
        throw failure(TRITONSERVER_ERROR_INVALID_ARG,
                      std::string(NAME) + " has no function " + name + ": build it from this version");
}

/// The launch of to = factor * from.
struct one_term {
    one_term(void *to, DLDataType to_type, const void *from, DLDataType from_type, std::size_t count, double factor)
        : part{count, 0, 1}, sum{to, to_type, 0, 1, 0}, term{from, factor, from_type, 0} {}
    one_term(const one_term &) = delete;
    one_term &operator=(const one_term &) = delete;

    bespoke_device_part part;
    bespoke_device_sum sum;
    bespoke_device_term term;
    bespoke_device_combination asked{sizeof asked, 1, 1, 1, &part, &sum, &term};
};

}  // namespace

void gpu_library::closer::operator()(void *library) const noexcept { dlclose(library); }

// The path is the operator's own.
// NOLINTNEXTLINE(clang-analyzer-optin.taint.GenericTaint)
gpu_library::gpu_library(const char *path) : library_(dlopen(path, RTLD_NOW | RTLD_LOCAL)) {
    if (!library_)
        throw failure(
            TRITONSERVER_ERROR_INVALID_ARG,
            std::string("BESPOKE_CUDA_LIBRARY: ") + dlerror());  // NOLINT(concurrency-mt-unsafe): of glibc it is
    look_up(library_.get(), "bespoke_cuda_ops", ops);
    look_up(library_.get(), "bespoke_cuda_open", open);
    look_up(library_.get(), "bespoke_cuda_close", close);
    look_up(library_.get(), "bespoke_cuda_wait", wait);
    look_up(library_.get(), "bespoke_cuda_copy", copy);
}

std::shared_ptr<const gpu_library> gpu_library::find() {
    const char *named = std::getenv("BESPOKE_CUDA_LIBRARY");  // NOLINT(concurrency-mt-unsafe): nobody sets it
    if (named != nullptr) return std::shared_ptr<const gpu_library>(new gpu_library(named));
    // Beside the backend: its run path. One that is there and cannot be loaded is not passed over.
    Dl_info own{};
    if (dladdr(reinterpret_cast<const void *>(&must), &own) == 0) return nullptr;
    const std::string backend = own.dli_fname;
    const std::string beside = backend.substr(0, backend.rfind('/') + 1) + NAME;
    if (std::FILE *file = std::fopen(beside.c_str(), "rb")) {
        std::fclose(file);
        return std::shared_ptr<const gpu_library>(new gpu_library(beside.c_str()));
    }
    return nullptr;
}

device::device(std::shared_ptr<const gpu_library> library, int index) : library_(std::move(library)) {
    gpu_.device = index;
    must(library_->open(&gpu_), ("opening GPU " + std::to_string(index)).c_str());
    library_->ops(&gpu_, &ops_);
    gathering_ = ops_;
    gathering_.context = this;
    gathering_.allocate = [](void *self, std::uint64_t bytes, void **memory) {
        const auto &ops = static_cast<device *>(self)->ops_;
        return ops.allocate(ops.context, bytes, memory);
    };
    // What the sums that wait would read or write must not change or go before.
    gathering_.release = [](void *self, void *memory) {
        auto &own = *static_cast<device *>(self);
        const std::int32_t launched = own.flush(), answer = own.ops_.release(own.ops_.context, memory);
        return launched != 0 ? launched : answer;
    };
    gathering_.copy = [](void *self, void *to, const void *from, std::uint64_t bytes) {
        auto &own = *static_cast<device *>(self);
        const std::int32_t launched = own.flush();
        return launched != 0 ? launched : own.ops_.copy(own.ops_.context, to, from, bytes);
    };
    gathering_.finite = [](void *self, const void *numbers, DLDataType dtype, std::uint64_t rows,
                           std::uint64_t elements, std::uint8_t *finite) {
        auto &own = *static_cast<device *>(self);
        const std::int32_t launched = own.flush();
        return launched != 0 ? launched : own.ops_.finite(own.ops_.context, numbers, dtype, rows, elements, finite);
    };
    gathering_.combine = gather;
}

device::~device() { static_cast<void>(library_->close(&gpu_)); }

std::int32_t device::gather(void *self, const bespoke_device_combination *asked) {
    auto &own = *static_cast<device *>(self);
    const DLDataType type = asked->sums[0].dtype;
    const auto other = [&](const bespoke_device_sum &sum) {
        return sum.dtype.code != type.code || sum.dtype.bits != type.bits;
    };
    // A launch's sums are all of one type.
    if (std::any_of(own.sums_.begin(), own.sums_.end(), other))
        if (const std::int32_t failed = own.flush()) return failed;
    try {
        // All room first: where memory ends, nothing of it waits.
        own.parts_.reserve(own.parts_.size() + asked->part_count);
        own.sums_.reserve(own.sums_.size() + asked->sum_count);
        own.terms_.reserve(own.terms_.size() + asked->term_count);
    } catch (const std::bad_alloc &) {
        return -1;
    }
    const auto sums = static_cast<std::uint32_t>(own.sums_.size()),
               terms = static_cast<std::uint32_t>(own.terms_.size());
    own.parts_.insert(own.parts_.end(), asked->parts, asked->parts + asked->part_count);
    own.sums_.insert(own.sums_.end(), asked->sums, asked->sums + asked->sum_count);
    own.terms_.insert(own.terms_.end(), asked->terms, asked->terms + asked->term_count);
    for (std::size_t i = own.parts_.size() - asked->part_count; i < own.parts_.size(); i++)
        own.parts_[i].first_sum += sums;
    for (std::size_t i = sums; i < own.sums_.size(); i++) own.sums_[i].first_term += terms;
    return 0;
}

std::int32_t device::flush() noexcept {
    if (parts_.empty()) return 0;
    const bespoke_device_combination all{sizeof all,
                                         static_cast<std::uint32_t>(parts_.size()),
                                         static_cast<std::uint32_t>(sums_.size()),
                                         static_cast<std::uint32_t>(terms_.size()),
                                         parts_.data(),
                                         sums_.data(),
                                         terms_.data()};
    const std::int32_t answer = ops_.combine(ops_.context, &all);
    forget();
    return answer;
}

void device::forget() noexcept {
    parts_.clear();
    sums_.clear();
    terms_.clear();
}

void device::gather_copy(float *to, const float *from, std::size_t count) {
    constexpr DLDataType type = bespoke::dtype_of<float>::value;
    const one_term copy(to, type, from, type, count, 1.0);
    must(gather(this, &copy.asked), "queueing a copy");
}

void device::launch() { must(flush(), "queueing an update"); }

void *device::allocate(std::size_t bytes) const {
    void *memory = nullptr;
    if (ops_.allocate(ops_.context, bytes, &memory) != 0 || memory == nullptr)
        throw failure(TRITONSERVER_ERROR_UNAVAILABLE,
                      std::to_string(bytes) + " bytes of GPU " + std::to_string(index()) + " cannot be had");
    return memory;
}

void device::release(void *memory) const noexcept { static_cast<void>(ops_.release(ops_.context, memory)); }

void device::copy(void *to, const void *from, std::size_t bytes) const {
    must(library_->copy(&gpu_, to, from, bytes), "copying");
}

void device::convert(void *to, DLDataType to_type, const void *from, DLDataType from_type, std::size_t count,
                     double factor) const {
    const one_term product(to, to_type, from, from_type, count, factor);
    must(ops_.combine(ops_.context, &product.asked), "converting");
}

void device::wait() const { must(library_->wait(&gpu_), "waiting for the GPU"); }

std::size_t device::first_infinite(const float *numbers, std::size_t rows, std::size_t elements) const {
    std::vector<std::uint8_t> finite(rows);
    must(ops_.finite(ops_.context, numbers, bespoke::dtype_of<float>::value, rows, elements, finite.data()),
         "looking for what is not finite");
    return static_cast<std::size_t>(std::find(finite.begin(), finite.end(), 0) - finite.begin());
}

storage::~storage() {
    if (there_ != nullptr) place_->release(there_);
}

void storage::resize(std::size_t count) {
    if (!place_) {
        here_.resize(count);
    } else if (count > room_) {
        float *more = static_cast<float *>(place_->allocate(count * sizeof(float)));
        if (there_ != nullptr) place_->release(there_);
        there_ = more;
        room_ = count;
    }
    size_ = count;
}

void storage::put(std::size_t first, const float *from, std::size_t count) {
    if (!place_) {
        std::memcpy(data() + first, from, count * sizeof(float));
        return;
    }
    const bespoke_device_ops &ops = place_->ops();
    must(ops.copy(ops.context, data() + first, from, count * sizeof(float)), "copying");
}

}  // namespace bespoke_triton
