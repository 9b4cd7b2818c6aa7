// The memory that an instance's samples are in: the host's, or that of a GPU, by libbespoke_cuda.so.

#ifndef BESPOKE_TRITON_DEVICE_HPP
#define BESPOKE_TRITON_DEVICE_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "bespoke.hpp"
#include "bespoke_cuda.h"
#include "triton.hpp"

namespace bespoke_triton {

/// The functions of a libbespoke_cuda.so.
class gpu_library {
public:
    /// The one that the environment's BESPOKE_CUDA_LIBRARY names, or that lies beside the backend; nullptr where there is
    /// none. Errors where it cannot be loaded.
    static std::shared_ptr<const gpu_library> find();

    decltype(&bespoke_cuda_ops) ops = nullptr;
    decltype(&bespoke_cuda_open) open = nullptr;
    decltype(&bespoke_cuda_close) close = nullptr;
    decltype(&bespoke_cuda_wait) wait = nullptr;
    decltype(&bespoke_cuda_copy) copy = nullptr;

private:
    struct closer {
        void operator()(void *library) const noexcept;
    };

    explicit gpu_library(const char *path);

    std::unique_ptr<void, closer> library_;
};

/// One stream of a GPU, on which all of an instance's work is queued. What is not said otherwise is for any thread.
class device {
public:
    device(std::shared_ptr<const gpu_library> library, int index);
    ~device();
    device(const device &) = delete;
    device &operator=(const device &) = delete;

    /// The GPU's index.
    int index() const noexcept { return gpu_.device; }
    /// Whose memory it is, in a tensor.
    DLDevice where() const noexcept { return ops_.device; }

    /// Operations that are queued at once.
    const bespoke_device_ops &ops() const noexcept { return ops_; }
    /// Operations whose sums wait for `launch`, so that those of several samplers are one launch; none may read what
    /// another one writes. One thread.
    const bespoke_device_ops &gathering() const noexcept { return gathering_; }
    /// Adds to what waits that `count` numbers are copied. One thread.
    void gather_copy(float *to, const float *from, std::size_t count);
    /// Queues the sums that wait. One thread.
    void launch();
    /// Lets go of the sums that wait, before the memory that they read or write goes. One thread.
    void forget() noexcept;

    void *allocate(std::size_t bytes) const;
    void release(void *memory) const noexcept;
    /// Copies between any memory of host and GPU, behind what is queued, and waits.
    void copy(void *to, const void *from, std::size_t bytes) const;
    /// Queues `to` = `factor` * `from`, of these types.
    void convert(void *to, DLDataType to_type, const void *from, DLDataType from_type, std::size_t count,
                 double factor = 1.0) const;
    void wait() const;
    /// The first of `rows` rows of `elements` numbers that are not all finite, or `rows`. Waits.
    std::size_t first_infinite(const float *numbers, std::size_t rows, std::size_t elements) const;

private:
    static std::int32_t gather(void *self, const bespoke_device_combination *asked);
    /// `launch`, answering as the operations do.
    std::int32_t flush() noexcept;

    std::shared_ptr<const gpu_library> library_;
    bespoke_cuda gpu_{};
    // NOLINTNEXTLINE(bugprone-invalid-enum-default-initialization): they are set where this is made
    bespoke_device_ops ops_{}, gathering_{};
    std::vector<bespoke_device_part> parts_;
    std::vector<bespoke_device_sum> sums_;
    std::vector<bespoke_device_term> terms_;
};

/// Float32 numbers in host memory, or, with a device, in its.
class storage {
public:
    explicit storage(std::shared_ptr<const device> place = nullptr) : place_(std::move(place)) {}
    ~storage();
    storage(storage &&other) noexcept
        : place_(std::move(other.place_)),
          here_(std::move(other.here_)),
          there_(std::exchange(other.there_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          room_(std::exchange(other.room_, 0)) {}
    storage &operator=(storage &&) = delete;

    /// Room for `count` numbers; what was there may be lost.
    void resize(std::size_t count);
    std::size_t size() const noexcept { return size_; }
    float *data() noexcept { return place_ ? there_ : here_.data(); }
    const float *data() const noexcept { return place_ ? there_ : here_.data(); }
    /// nullptr for the host's.
    const device *place() const noexcept { return place_.get(); }

    /// Overwrites those from `first` on with `count` others of the same memory; of a device's that is queued.
    void put(std::size_t first, const float *from, std::size_t count);

private:
    std::shared_ptr<const device> place_;
    std::vector<float> here_;
    float *there_ = nullptr;
    std::size_t size_ = 0, room_ = 0;
};

}  // namespace bespoke_triton

#endif
