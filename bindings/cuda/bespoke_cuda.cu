// The operations of bespoke_cuda.h: by nvcc for NVIDIA GPUs, by hipcc for AMD ones, and, with BESPOKE_CUDA_ON_HOST
// defined, by a C++ compiler for the host, which then runs the same arithmetic in loops (for tests).

#include "bespoke_cuda.h"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(BESPOKE_CUDA_ON_HOST)
#define DEVICE
#define BOTH
#elif defined(__HIP__)
#include <hip/hip_fp16.h>
#include <hip/hip_runtime.h>
#define DEVICE __device__
#define BOTH __host__ __device__
#define cudaError_t hipError_t
#define cudaErrorInvalidValue hipErrorInvalidValue
#define cudaErrorMemoryAllocation hipErrorOutOfMemory
#define cudaErrorStreamCaptureUnsupported hipErrorStreamCaptureUnsupported
#define cudaFreeAsync hipFreeAsync
#define cudaGetDevice hipGetDevice
#define cudaGetLastError hipGetLastError
#define cudaMallocAsync hipMallocAsync
#define cudaMemcpyAsync hipMemcpyAsync
#define cudaMemcpyDefault hipMemcpyDefault
#define cudaMemcpyDeviceToDevice hipMemcpyDeviceToDevice
#define cudaMemcpyDeviceToHost hipMemcpyDeviceToHost
#define cudaMemcpyHostToDevice hipMemcpyHostToDevice
#define cudaMemsetAsync hipMemsetAsync
#define cudaSetDevice hipSetDevice
#define cudaStreamCaptureStatus hipStreamCaptureStatus
#define cudaStreamCaptureStatusNone hipStreamCaptureStatusNone
#define cudaStreamCreateWithFlags hipStreamCreateWithFlags
#define cudaStreamDestroy hipStreamDestroy
#define cudaStreamIsCapturing hipStreamIsCapturing
#define cudaStreamNonBlocking hipStreamNonBlocking
#define cudaStreamSynchronize hipStreamSynchronize
#define cudaStream_t hipStream_t
#define cudaSuccess hipSuccess
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define DEVICE __device__
#define BOTH __host__ __device__
#endif

// So that sums stay in registers: an array that is not indexed by constants does not.
#if defined(BESPOKE_CUDA_ON_HOST)
#define UNROLLED
#define UNROLLED_BY_FOUR
#else
#define UNROLLED _Pragma("unroll")
#define UNROLLED_BY_FOUR _Pragma("unroll 4")
#endif

namespace {

// Sums of a part at most; see bespoke_device_part.
constexpr int MAX_SUMS = 4;
// Numbers that a thread takes at a time, of every array.
constexpr int WIDE = 4;

// A bespoke_device_part.
struct Part {
    std::uint64_t count;
    std::uint32_t first_sum;
    std::uint16_t sum_count;
    // Whether every array begins where WIDE of its numbers can be read at once.
    std::uint16_t wide;
};

// All that one launch does.
struct Lists {
    const Part *parts;
    const bespoke_device_sum *sums;
    const bespoke_device_term *terms;
    std::uint32_t part_count;
};

// ---- Numbers of each type, and arithmetic that rounds as the library does in host memory.

template <class To, class From>
BOTH To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

struct float16 {
    std::uint16_t bits;
};
struct bfloat16 {
    std::uint16_t bits;
};

BOTH double wide(double x) { return x; }
BOTH float wide(float x) { return x; }
BOTH float wide(bfloat16 x) { return bits<float>(static_cast<std::uint32_t>(x.bits) << 16); }

#if defined(BESPOKE_CUDA_ON_HOST)

float times(float c, float x) { return c * x; }
double times(double c, double x) { return c * x; }
float plus(float a, float b) { return a + b; }
double plus(double a, double b) { return a + b; }

float wide(float16 x) {
    const int exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
    float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                               : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
    if (exponent == 31) size = fraction == 0 ? INFINITY : NAN;
    return (x.bits & 0x8000) != 0 ? -size : size;
}

// To the nearest, ties to even: as nearbyint rounds.
float16 narrow_half(float x) {
    const float size = std::fabs(x);
    std::uint32_t number = 0x7c00;
    if (size < 6.103515625e-05F) {
        number = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 24)));
    } else if (size < 65520) {
        int exponent = 0;
        std::frexp(size, &exponent);
        const auto fraction = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(size, 11 - exponent)));
        number = (static_cast<std::uint32_t>(exponent + 14) << 10) + fraction - 1024;
    } else if (std::isnan(size)) {
        number = 0x7e00;
    }
    return {static_cast<std::uint16_t>(number | (std::signbit(x) ? 0x8000 : 0))};
}

#else

// By name, so that the compiler does not fuse them.
DEVICE float times(float c, float x) { return __fmul_rn(c, x); }
DEVICE double times(double c, double x) { return __dmul_rn(c, x); }
DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
DEVICE double plus(double a, double b) { return __dadd_rn(a, b); }

BOTH float wide(float16 x) { return __half2float(__ushort_as_half(x.bits)); }
BOTH float16 narrow_half(float x) { return {__half_as_ushort(__float2half_rn(x))}; }

#endif

BOTH void narrow(double x, double &to) { to = x; }
BOTH void narrow(float x, float &to) { to = x; }
BOTH void narrow(float x, float16 &to) { to = narrow_half(x); }
BOTH void narrow(float x, bfloat16 &to) {
    const std::uint32_t number = bits<std::uint32_t>(x);
    // A lower half above 0x8000 carries into the upper one, and 0x8000 itself where the upper one is odd.
    const std::uint32_t rounded = ((number | (number >> 16 & 1)) + 0x7fff) >> 16;
    to.bits = static_cast<std::uint16_t>(x == x ? rounded : number >> 16 | 0x40);
}

// N numbers, read or written at once.
template <class T, int N>
struct alignas(N * sizeof(T)) Several {
    T at[N];
};

// ---- Sums.

template <class T, class Sum, int N>
DEVICE void add(Sum (&sums)[N], const void *numbers, std::uint64_t place, Sum c, bool fused) {
    const auto values = *reinterpret_cast<const Several<T, N> *>(static_cast<const T *>(numbers) + place);
    for (int i = 0; i < N; i++) {
        const auto x = static_cast<Sum>(wide(values.at[i]));
        // As in host memory, where fusing is what makes bfloat16 fast.
        sums[i] = fused ? fma(c, x, sums[i]) : plus(sums[i], times(c, x));
    }
}

template <class T, class Sum, int N>
DEVICE void store(const Sum (&sums)[N], void *out, std::uint64_t place) {
    Several<T, N> rounded;
    for (int i = 0; i < N; i++) narrow(sums[i], rounded.at[i]);
    *reinterpret_cast<Several<T, N> *>(static_cast<T *>(out) + place) = rounded;
}

// Launches whose arrays are all of one type, as nearly all are: without branches, several terms are read at once.
template <class T, class Accumulator>
struct Same {
    using Sum = Accumulator;

    template <int N>
    DEVICE static void add_terms(Sum (&sums)[N], const bespoke_device_term *terms, std::uint32_t count,
                                 DLDataType dtype, std::uint64_t place) {
        const bool fused = dtype.code == kDLBfloat;
        UNROLLED_BY_FOUR for (std::uint32_t t = 0; t < count; t++)
            add<T>(sums, terms[t].numbers, place, static_cast<Sum>(terms[t].coefficient), fused);
    }

    template <int N>
    DEVICE static void put(const Sum (&sums)[N], const bespoke_device_sum &sum, std::uint64_t place) {
        store<T>(sums, sum.out, place);
    }
};

// Any others.
template <class Accumulator>
struct Mixed {
    using Sum = Accumulator;

    template <int N>
    DEVICE static void add_terms(Sum (&sums)[N], const bespoke_device_term *terms, std::uint32_t count,
                                 DLDataType dtype, std::uint64_t place) {
        const bool fused = dtype.code == kDLBfloat;
        for (std::uint32_t t = 0; t < count; t++) {
            const bespoke_device_term &term = terms[t];
            const auto c = static_cast<Sum>(term.coefficient);
            if (term.numbers == nullptr)
                for (int i = 0; i < N; i++) sums[i] = plus(sums[i], c);
            else if (term.dtype.bits == 64)
                add<double>(sums, term.numbers, place, c, fused);
            else if (term.dtype.bits == 32)
                add<float>(sums, term.numbers, place, c, fused);
            else if (term.dtype.code == kDLBfloat)
                add<bfloat16>(sums, term.numbers, place, c, fused);
            else
                add<float16>(sums, term.numbers, place, c, fused);
        }
    }

    template <int N>
    DEVICE static void put(const double (&sums)[N], const bespoke_device_sum &sum, std::uint64_t place) {
        store<double>(sums, sum.out, place);
    }
    template <int N>
    DEVICE static void put(const float (&sums)[N], const bespoke_device_sum &sum, std::uint64_t place) {
        if (sum.dtype.bits == 32)
            store<float>(sums, sum.out, place);
        else if (sum.dtype.code == kDLBfloat)
            store<bfloat16>(sums, sum.out, place);
        else
            store<float16>(sums, sum.out, place);
    }
};

// All sums of a part, of the N numbers from `place` on. Nothing is written before all has been read.
template <class Types, int N>
DEVICE void combine_at(const Lists &lists, const Part &part, std::uint64_t place) {
    typename Types::Sum sums[MAX_SUMS][N];
    UNROLLED for (int s = 0; s < MAX_SUMS; s++) {
        if (s >= part.sum_count) continue;
        const bespoke_device_sum &sum = lists.sums[part.first_sum + s];
        // Sums of nothing: -0 changes no number that is added.
        for (int i = 0; i < N; i++) sums[s][i] = typename Types::Sum(-0.0);
        Types::add_terms(sums[s], lists.terms + sum.first_term, sum.term_count, sum.dtype, place);
    }
    UNROLLED for (int s = 0; s < MAX_SUMS; s++) if (s < part.sum_count)
        Types::put(sums[s], lists.sums[part.first_sum + s], place);
}

// What thread `thread` of the `threads` of a part does.
template <class Types>
DEVICE void combine_part(const Lists &lists, const Part &part, std::uint64_t thread, std::uint64_t threads) {
    const std::uint64_t wide = part.wide != 0 ? part.count / WIDE : 0;
    for (std::uint64_t i = thread; i < wide; i += threads) combine_at<Types, WIDE>(lists, part, i * WIDE);
    for (std::uint64_t i = wide * WIDE + thread; i < part.count; i += threads) combine_at<Types, 1>(lists, part, i);
}

// ---- Numbers that are not finite.

template <class T>
DEVICE bool all_finite(const void *numbers, std::uint64_t count, std::uint64_t thread, std::uint64_t threads) {
    bool finite = true;
    for (std::uint64_t i = thread; i < count; i += threads) {
        const auto x = wide(static_cast<const T *>(numbers)[i]);
        // 0 but for infinities and NaNs.
        finite = finite && x - x == 0;
    }
    return finite;
}

// Whether what thread `thread` sees of a row is finite.
DEVICE bool finite_row(const void *numbers, DLDataType dtype, std::uint64_t elements, std::uint64_t row,
                       std::uint64_t thread, std::uint64_t threads) {
    const char *begin = static_cast<const char *>(numbers) + row * elements * (dtype.bits / 8);
    if (dtype.bits == 64) return all_finite<double>(begin, elements, thread, threads);
    if (dtype.bits == 32) return all_finite<float>(begin, elements, thread, threads);
    if (dtype.code == kDLBfloat) return all_finite<bfloat16>(begin, elements, thread, threads);
    return all_finite<float16>(begin, elements, thread, threads);
}

// ---- What a launch is given.

bool aligned(const void *numbers, DLDataType dtype) {
    return reinterpret_cast<std::uintptr_t>(numbers) % (WIDE * dtype.bits / 8) == 0;
}

// A part as the kernel takes it.
Part prepared(const bespoke_device_combination &asked, const bespoke_device_part &part) {
    bool wide = true;
    for (std::uint32_t s = 0; s < part.sum_count; s++) {
        const bespoke_device_sum &sum = asked.sums[part.first_sum + s];
        wide = wide && aligned(sum.out, sum.dtype);
        for (std::uint32_t t = 0; t < sum.term_count; t++) {
            const bespoke_device_term &term = asked.terms[sum.first_term + t];
            wide = wide && aligned(term.numbers, term.dtype);
        }
    }
    return {part.count, part.first_sum, static_cast<std::uint16_t>(part.sum_count), static_cast<std::uint16_t>(wide)};
}

bool within_bounds(const bespoke_device_combination &asked) {
    for (std::uint32_t p = 0; p < asked.part_count; p++)
        if (asked.parts[p].sum_count > MAX_SUMS) return false;
    return true;
}

bool same(DLDataType a, DLDataType b) { return a.code == b.code && a.bits == b.bits; }

// Answers what `run` does, for the types of a launch: its sums are all of one.
template <class Run>
int with_types(const bespoke_device_combination &asked, Run run) {
    const DLDataType type = asked.sums[0].dtype;
    bool mixed = false;
    for (std::uint32_t t = 0; t < asked.term_count; t++)
        mixed = mixed || asked.terms[t].numbers == nullptr || !same(asked.terms[t].dtype, type);
    if (type.bits == 64) return mixed ? run(Mixed<double>()) : run(Same<double, double>());
    if (mixed) return run(Mixed<float>());
    if (type.bits == 32) return run(Same<float, float>());
    return type.code == kDLBfloat ? run(Same<bfloat16, float>()) : run(Same<float16, float>());
}

#if defined(BESPOKE_CUDA_ON_HOST)

int allocate(void *, std::uint64_t bytes, void **memory) {
    *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *memory == nullptr ? 2 : 0;
}

int release(void *, void *memory) {
    std::free(memory);
    return 0;
}

int copy(void *, void *to, const void *from, std::uint64_t bytes) {
    std::memcpy(to, from, bytes);
    return 0;
}

// So many threads, one after the other.
constexpr std::uint64_t THREADS = 5;

int combine(void *, const bespoke_device_combination *asked) {
    if (!within_bounds(*asked)) return 1;
    return with_types(*asked, [&](auto types) {
        const Lists lists{nullptr, asked->sums, asked->terms, asked->part_count};
        for (std::uint32_t p = 0; p < asked->part_count; p++)
            for (std::uint64_t thread = 0; thread < THREADS; thread++)
                combine_part<decltype(types)>(lists, prepared(*asked, asked->parts[p]), thread, THREADS);
        return 0;
    });
}

int finite(void *, const void *numbers, DLDataType dtype, std::uint64_t rows, std::uint64_t elements,
           std::uint8_t *answer) {
    for (std::uint64_t row = 0; row < rows; row++) {
        answer[row] = 1;
        for (std::uint64_t thread = 0; thread < THREADS; thread++)
            if (!finite_row(numbers, dtype, elements, row, thread, THREADS)) answer[row] = 0;
    }
    return 0;
}

#else

constexpr int BLOCK = 256;
// Blocks of a part at most: more than a GPU runs at a time.
constexpr std::uint64_t MOST_BLOCKS = 4096;
// Rows of blocks at most, by CUDA.
constexpr std::uint64_t MOST_ROWS = 65535;

__device__ std::uint64_t thread_of_part() { return static_cast<std::uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ std::uint64_t threads_of_part() { return static_cast<std::uint64_t>(gridDim.x) * blockDim.x; }

template <class Types>
__device__ void combine_all(const Lists &lists) {
    for (std::uint32_t p = blockIdx.y; p < lists.part_count; p += gridDim.y)
        combine_part<Types>(lists, lists.parts[p], thread_of_part(), threads_of_part());
}

// Lists that travel with the launch, as those of nearly all do: nothing is copied before it, and a graph keeps them.
template <int PARTS, int SUMS, int TERMS>
struct Carried {
    std::uint32_t part_count;
    Part parts[PARTS];
    bespoke_device_sum sums[SUMS];
    bespoke_device_term terms[TERMS];
};
using Few = Carried<4, 8, 32>;
using Many = Carried<128, 256, 900>;
static_assert(sizeof(Many) <= 32764, "what CUDA takes along");

#if defined(__HIP__)
#define CARRIED const
#else
#define CARRIED const __grid_constant__
#endif

template <class Types, class Carry>
__global__ void combine_carried(CARRIED Carry carried) {
    combine_all<Types>({carried.parts, carried.sums, carried.terms, carried.part_count});
}

template <class Types>
__global__ void combine_listed(Lists lists) {
    combine_all<Types>(lists);
}

__global__ void find_infinite(const void *numbers, DLDataType dtype, std::uint64_t rows, std::uint64_t elements,
                              std::uint8_t *finite) {
    for (std::uint64_t row = blockIdx.y; row < rows; row += gridDim.y)
        if (!finite_row(numbers, dtype, elements, row, thread_of_part(), threads_of_part())) finite[row] = 0;
}

// Makes the GPU of a table the current one, and then the one before again.
class Current {
public:
    explicit Current(const void *context) : gpu_(*static_cast<const bespoke_cuda *>(context)) {
        failed_ = cudaGetDevice(&before_);
        if (failed_ == cudaSuccess && before_ != gpu_.device) failed_ = cudaSetDevice(gpu_.device);
    }
    ~Current() {
        if (before_ != gpu_.device) (void)cudaSetDevice(before_);
    }
    Current(const Current &) = delete;
    Current &operator=(const Current &) = delete;

    cudaError_t failed() const { return failed_; }
    cudaStream_t stream() const { return static_cast<cudaStream_t>(gpu_.stream); }

private:
    const bespoke_cuda &gpu_;
    int before_ = 0;
    cudaError_t failed_;
};

int allocate(void *context, std::uint64_t bytes, void **memory) {
    const Current gpu(context);
    return gpu.failed() != cudaSuccess ? gpu.failed() : cudaMallocAsync(memory, bytes, gpu.stream());
}

int release(void *context, void *memory) {
    const Current gpu(context);
    return gpu.failed() != cudaSuccess ? gpu.failed() : cudaFreeAsync(memory, gpu.stream());
}

int copy(void *context, void *to, const void *from, std::uint64_t bytes) {
    const Current gpu(context);
    if (gpu.failed() != cudaSuccess) return gpu.failed();
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, gpu.stream());
}

// Blocks for `rows` parts of at most `count` numbers.
dim3 blocks(std::uint64_t count, std::uint64_t rows) {
    const std::uint64_t needed = (count + BLOCK * WIDE - 1) / (BLOCK * WIDE);
    return dim3(static_cast<unsigned>(needed < MOST_BLOCKS ? needed : MOST_BLOCKS),
                static_cast<unsigned>(rows < MOST_ROWS ? rows : MOST_ROWS));
}

template <class Carry>
bool fits(const bespoke_device_combination &asked) {
    return asked.part_count <= sizeof(Carry::parts) / sizeof(Part) &&
           asked.sum_count <= sizeof(Carry::sums) / sizeof(bespoke_device_sum) &&
           asked.term_count <= sizeof(Carry::terms) / sizeof(bespoke_device_term);
}

template <class Types, class Carry>
int launch_carried(const bespoke_device_combination &asked, dim3 grid, cudaStream_t stream) {
    Carry carry;
    carry.part_count = asked.part_count;
    for (std::uint32_t p = 0; p < asked.part_count; p++) carry.parts[p] = prepared(asked, asked.parts[p]);
    std::memcpy(carry.sums, asked.sums, asked.sum_count * sizeof *asked.sums);
    std::memcpy(carry.terms, asked.terms, asked.term_count * sizeof *asked.terms);
    (void)cudaGetLastError();  // what an earlier call has reported is not this launch's
    combine_carried<Types><<<grid, BLOCK, 0, stream>>>(carry);
    return cudaGetLastError();
}

// Lists that are too long to travel: by way of the GPU's memory. The host's copy of them is read before this returns,
// but not where a stream is captured.
template <class Types>
int launch_listed(const bespoke_device_combination &asked, dim3 grid, cudaStream_t stream) {
    cudaStreamCaptureStatus capture{};
    if (const cudaError_t failed = cudaStreamIsCapturing(stream, &capture)) return failed;
    if (capture != cudaStreamCaptureStatusNone) return cudaErrorStreamCaptureUnsupported;
    const std::size_t parts = asked.part_count * sizeof(Part), sums = asked.sum_count * sizeof *asked.sums,
                      terms = asked.term_count * sizeof *asked.terms;
    char *const packed = static_cast<char *>(std::malloc(parts + sums + terms));
    if (packed == nullptr) return cudaErrorMemoryAllocation;
    for (std::uint32_t p = 0; p < asked.part_count; p++) {
        const Part part = prepared(asked, asked.parts[p]);
        std::memcpy(packed + p * sizeof part, &part, sizeof part);
    }
    std::memcpy(packed + parts, asked.sums, sums);
    std::memcpy(packed + parts + sums, asked.terms, terms);
    void *memory = nullptr;
    cudaError_t failed = cudaMallocAsync(&memory, parts + sums + terms, stream);
    if (failed == cudaSuccess) {
        failed = cudaMemcpyAsync(memory, packed, parts + sums + terms, cudaMemcpyHostToDevice, stream);
        if (failed == cudaSuccess) {
            const char *begin = static_cast<const char *>(memory);
            (void)cudaGetLastError();  // what an earlier call has reported is not this launch's
            combine_listed<Types><<<grid, BLOCK, 0, stream>>>(
                {reinterpret_cast<const Part *>(begin), reinterpret_cast<const bespoke_device_sum *>(begin + parts),
                 reinterpret_cast<const bespoke_device_term *>(begin + parts + sums), asked.part_count});
            failed = cudaGetLastError();
        }
        const cudaError_t freed = cudaFreeAsync(memory, stream);
        if (failed == cudaSuccess) failed = freed;
    }
    std::free(packed);
    return failed;
}

int combine(void *context, const bespoke_device_combination *asked) {
    const Current gpu(context);
    if (gpu.failed() != cudaSuccess) return gpu.failed();
    if (!within_bounds(*asked)) return cudaErrorInvalidValue;
    std::uint64_t most = 0;
    for (std::uint32_t p = 0; p < asked->part_count; p++)
        if (asked->parts[p].count > most) most = asked->parts[p].count;
    const dim3 grid = blocks(most, asked->part_count);
    return with_types(*asked, [&](auto types) {
        using Types = decltype(types);
        if (fits<Few>(*asked)) return launch_carried<Types, Few>(*asked, grid, gpu.stream());
        if (fits<Many>(*asked)) return launch_carried<Types, Many>(*asked, grid, gpu.stream());
        return launch_listed<Types>(*asked, grid, gpu.stream());
    });
}

int finite(void *context, const void *numbers, DLDataType dtype, std::uint64_t rows, std::uint64_t elements,
           std::uint8_t *answer) {
    const Current gpu(context);
    if (gpu.failed() != cudaSuccess) return gpu.failed();
    void *flags = nullptr;
    cudaError_t failed = cudaMallocAsync(&flags, rows, gpu.stream());
    if (failed != cudaSuccess) return failed;
    failed = cudaMemsetAsync(flags, 1, rows, gpu.stream());
    if (failed == cudaSuccess) {
        (void)cudaGetLastError();  // what an earlier call has reported is not this launch's
        find_infinite<<<blocks(elements, rows), BLOCK, 0, gpu.stream()>>>(numbers, dtype, rows, elements,
                                                                          static_cast<std::uint8_t *>(flags));
        failed = cudaGetLastError();
    }
    if (failed == cudaSuccess) failed = cudaMemcpyAsync(answer, flags, rows, cudaMemcpyDeviceToHost, gpu.stream());
    if (failed == cudaSuccess) failed = cudaStreamSynchronize(gpu.stream());
    const cudaError_t freed = cudaFreeAsync(flags, gpu.stream());
    return failed == cudaSuccess ? freed : failed;
}

#endif

}  // namespace

void bespoke_cuda_ops(bespoke_cuda *gpu, bespoke_device_ops *ops) {
    *ops = bespoke_device_ops{};
    ops->struct_size = sizeof *ops;
#if defined(__HIP__)
    ops->device.device_type = kDLROCM;
#else
    ops->device.device_type = kDLCUDA;
#endif
    ops->device.device_id = gpu->device;
    ops->context = gpu;
    ops->allocate = allocate;
    ops->release = release;
    ops->combine = combine;
    ops->copy = copy;
    ops->finite = finite;
}

#if defined(BESPOKE_CUDA_ON_HOST)

int bespoke_cuda_open(bespoke_cuda *) { return 0; }
int bespoke_cuda_close(bespoke_cuda *) { return 0; }
int bespoke_cuda_wait(const bespoke_cuda *) { return 0; }

int bespoke_cuda_copy(const bespoke_cuda *, void *to, const void *from, std::uint64_t bytes) {
    return copy(nullptr, to, from, bytes);
}

#else

int bespoke_cuda_open(bespoke_cuda *gpu) {
    const Current current(gpu);
    if (current.failed() != cudaSuccess) return current.failed();
    cudaStream_t stream = nullptr;
    const cudaError_t failed = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    gpu->stream = stream;
    return failed;
}

int bespoke_cuda_close(bespoke_cuda *gpu) {
    if (const int failed = bespoke_cuda_wait(gpu)) return failed;
    const Current current(gpu);
    return current.failed() != cudaSuccess ? current.failed() : cudaStreamDestroy(current.stream());
}

int bespoke_cuda_wait(const bespoke_cuda *gpu) {
    const Current current(gpu);
    return current.failed() != cudaSuccess ? current.failed() : cudaStreamSynchronize(current.stream());
}

int bespoke_cuda_copy(const bespoke_cuda *gpu, void *to, const void *from, std::uint64_t bytes) {
    const Current current(gpu);
    if (current.failed() != cudaSuccess) return current.failed();
    const cudaError_t failed = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, current.stream());
    return failed != cudaSuccess ? failed : cudaStreamSynchronize(current.stream());
}

#endif
