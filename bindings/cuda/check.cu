// What bespoke_cuda.cu does on the GPU of this machine: the numbers of host memory, launches and waits counted, the
// time of an update beside that of a copy, and a whole solve as a graph. scripts/gpu-check runs it.
//
//     check [THETA]...
//
// Compiled with BESPOKE_CUDA_ON_HOST for the host, it goes the same way with the arithmetic of the kernels, in the
// host's memory; graphs are a GPU's alone, and no time is judged.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bespoke.hpp"
#if defined(BESPOKE_CUDA_ON_HOST)
#include "bespoke_cuda.cu"
#else
#include <cuda_runtime.h>

static unsigned waits = 0;
static cudaError_t counted_synchronize(cudaStream_t stream) {
    waits++;
    return cudaStreamSynchronize(stream);
}
#define cudaStreamSynchronize counted_synchronize
#include "bespoke_cuda.cu"
#undef cudaStreamSynchronize
#endif

namespace {

constexpr DLDataType TYPES[] = {{kDLFloat, 32, 1}, {kDLFloat, 64, 1}, {kDLFloat, 16, 1}, {kDLBfloat, 16, 1}};

std::string name_of(DLDataType dtype) {
    return (dtype.code == kDLBfloat ? "bfloat" : "float") + std::to_string(dtype.bits);
}

// ---- The GPU, or the host in its place.

#if defined(BESPOKE_CUDA_ON_HOST)

constexpr bool ON_GPU = false;
using Stream = void *;

Stream new_stream() { return nullptr; }
void wait_for(Stream) {}
void upload(Stream, void *to, const void *from, std::size_t bytes) { std::memcpy(to, from, bytes); }
void download(Stream, void *to, const void *from, std::size_t bytes) { std::memcpy(to, from, bytes); }
unsigned waited() { return 0; }

// Seconds of what `run` queues.
template <class Run>
double seconds(Stream, Run run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

#else

constexpr bool ON_GPU = true;
using Stream = cudaStream_t;

void must(cudaError_t outcome, const char *what) {
    if (outcome != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(outcome));
}

Stream new_stream() {
    Stream stream = nullptr;
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
    return stream;
}
void wait_for(Stream stream) { must(cudaStreamSynchronize(stream), "waiting for the stream"); }
void upload(Stream stream, void *to, const void *from, std::size_t bytes) {
    must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copying to the GPU");
    wait_for(stream);
}
void download(Stream stream, void *to, const void *from, std::size_t bytes) {
    must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream), "copying from the GPU");
    wait_for(stream);
}
unsigned waited() { return waits; }

// Seconds of what `run` queues.
template <class Run>
double seconds(Stream stream, Run run) {
    cudaEvent_t start = nullptr, end = nullptr;
    must(cudaEventCreate(&start), "making an event");
    must(cudaEventCreate(&end), "making an event");
    must(cudaEventRecord(start, stream), "recording an event");
    run();
    must(cudaEventRecord(end, stream), "recording an event");
    must(cudaEventSynchronize(end), "waiting for an event");
    float milliseconds = 0;
    must(cudaEventElapsedTime(&milliseconds, start, end), "reading an event");
    must(cudaEventDestroy(start), "freeing an event");
    must(cudaEventDestroy(end), "freeing an event");
    return static_cast<double>(milliseconds) * 1e-3;
}

#endif

// The table of bespoke_cuda.cu, which counts what it is asked for.
class Counted {
public:
    explicit Counted(Stream stream) : gpu_{0, stream} {
        bespoke_cuda_ops(&gpu_, &inner_);
        ops = inner_;
        ops.context = this;
        ops.allocate = [](void *self, std::uint64_t bytes, void **memory) {
            of(self).allocations++;
            return inner(self).allocate(inner(self).context, bytes, memory);
        };
        ops.release = [](void *self, void *memory) { return inner(self).release(inner(self).context, memory); };
        ops.combine = [](void *self, const bespoke_device_combination *asked) {
            of(self).launches++;
            return inner(self).combine(inner(self).context, asked);
        };
        ops.copy = [](void *self, void *to, const void *from, std::uint64_t bytes) {
            of(self).copies++;
            return inner(self).copy(inner(self).context, to, from, bytes);
        };
        ops.finite = [](void *self, const void *numbers, DLDataType dtype, std::uint64_t rows, std::uint64_t elements,
                        std::uint8_t *finite) {
            return inner(self).finite(inner(self).context, numbers, dtype, rows, elements, finite);
        };
    }
    Counted(const Counted &) = delete;
    Counted &operator=(const Counted &) = delete;

    Stream stream() const { return static_cast<Stream>(gpu_.stream); }

    bespoke_device_ops ops{};
    unsigned allocations = 0, launches = 0, copies = 0;

private:
    static Counted &of(void *self) { return *static_cast<Counted *>(self); }
    static const bespoke_device_ops &inner(void *self) { return of(self).inner_; }

    bespoke_cuda gpu_;
    bespoke_device_ops inner_{};
};

// Memory of the GPU, by its own operations.
class Room {
public:
    Room(Counted &gpu, std::size_t bytes) : gpu_(gpu), bytes_(bytes) {
        if (gpu.ops.allocate(gpu.ops.context, bytes, &memory_) != 0) throw std::bad_alloc();
    }
    ~Room() { gpu_.ops.release(gpu_.ops.context, memory_); }
    Room(const Room &) = delete;
    Room &operator=(const Room &) = delete;

    void *get() const { return memory_; }
    void fill(const std::vector<char> &from) { upload(gpu_.stream(), memory_, from.data(), from.size()); }
    std::vector<char> read() const {
        std::vector<char> numbers(bytes_);
        download(gpu_.stream(), numbers.data(), memory_, bytes_);
        return numbers;
    }

private:
    Counted &gpu_;
    std::size_t bytes_;
    void *memory_ = nullptr;
};

// ---- A network that computes the same to the bit on the GPU and on the host: (t + 1/2 - x) (1 + x).

template <class Sum>
BOTH Sum velocity_at(float t, Sum x) {
#if defined(__CUDA_ARCH__) || defined(BESPOKE_CUDA_ON_HOST)
    return times(plus(plus(Sum(t), Sum(0.5)), -x), plus(Sum(1), x));
#else
    return (Sum(t) + Sum(0.5) - x) * (Sum(1) + x);
#endif
}

template <class T>
BOTH void velocity_of(const float *t, const T *x, T *u, std::uint64_t elements, std::uint64_t i) {
    narrow(velocity_at(t[i / elements], wide(x[i])), u[i]);
}

#if !defined(BESPOKE_CUDA_ON_HOST)
template <class T>
__global__ void velocities(const float *t, const T *x, T *u, std::uint64_t elements, std::uint64_t count) {
    const std::uint64_t i = static_cast<std::uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count) velocity_of(t, x, u, elements, i);
}
#endif

// Where a velocity is computed; NULL is the host.
struct Where {
    Counted *gpu;
};

template <class T>
void velocities_of(const Where &where, const DLTensor &t, const DLTensor &x, const DLTensor &u) {
    std::uint64_t count = 1;
    for (std::int32_t i = 0; i < x.ndim; i++) count *= static_cast<std::uint64_t>(x.shape[i]);
    const std::uint64_t elements = count / static_cast<std::uint64_t>(x.shape[0]);
    const auto *times = static_cast<const float *>(t.data);
    const auto *from = static_cast<const T *>(x.data);
    auto *to = static_cast<T *>(u.data);
#if !defined(BESPOKE_CUDA_ON_HOST)
    if (where.gpu != nullptr) {
        const auto grid = static_cast<unsigned>((count + BLOCK - 1) / BLOCK);
        velocities<<<grid, BLOCK, 0, where.gpu->stream()>>>(times, from, to, elements, count);
        must(cudaGetLastError(), "launching the network");
        return;
    }
#endif
    (void)where;
    for (std::uint64_t i = 0; i < count; i++) velocity_of(times, from, to, elements, i);
}

std::int32_t network(void *user_data, const DLTensor *t, const DLTensor *x, DLTensor *u) {
    const auto &where = *static_cast<const Where *>(user_data);
    if (x->dtype.bits == 64)
        velocities_of<double>(where, *t, *x, *u);
    else if (x->dtype.bits == 32)
        velocities_of<float>(where, *t, *x, *u);
    else if (x->dtype.code == kDLBfloat)
        velocities_of<bfloat16>(where, *t, *x, *u);
    else
        velocities_of<float16>(where, *t, *x, *u);
    return 0;
}

// ---- Batches.

struct Batch {
    std::int64_t rows, elements;
    DLDataType dtype;

    std::size_t row_bytes() const { return static_cast<std::size_t>(elements) * dtype.bits / 8; }
    std::size_t bytes() const { return static_cast<std::size_t>(rows) * row_bytes(); }
};

// Noise, of numbers between -0.9 and 0.9; another one for each `phase`.
std::vector<char> noise(const Batch &batch, double phase = 0) {
    std::vector<char> bytes(batch.bytes());
    for (std::int64_t i = 0; i < batch.rows * batch.elements; i++) {
        const double value = std::sin(1.7 * static_cast<double>(i) + phase) * 0.9;
        const auto put = [&](auto number) {
            std::memcpy(&bytes[static_cast<std::size_t>(i) * sizeof number], &number, sizeof number);
        };
        if (batch.dtype.bits == 64) {
            put(value);
        } else if (batch.dtype.bits == 32) {
            put(static_cast<float>(value));
        } else if (batch.dtype.code == kDLBfloat) {
            bfloat16 number{};
            narrow(static_cast<float>(value), number);
            put(number);
        } else {
            float16 number{};
            narrow(static_cast<float>(value), number);
            put(number);
        }
    }
    return bytes;
}

// A tensor of `shape`, two sizes, on the GPU or, without one, on the host.
DLTensor tensor(Counted *gpu, void *memory, const Batch &batch, std::int64_t *shape) {
    DLTensor made{};
    made.data = memory;
    made.device = gpu != nullptr ? gpu->ops.device : DLDevice{kDLCPU, 0};
    made.ndim = 2;
    made.dtype = batch.dtype;
    made.shape = shape;
    return made;
}

bespoke::sampler sampler_on(Counted *gpu, const bespoke::theta &theta) {
    bespoke_sampler_options options{};
    if (gpu != nullptr) options.device_ops = &gpu->ops;
    return bespoke::sampler(theta, options);
}

// A whole solve, from and to `x`.
void solve(Counted *gpu, const bespoke::theta &theta, const bespoke::sampler &sampler, const Batch &batch, void *x) {
    Where where{gpu};
    std::int64_t shape[2] = {batch.rows, batch.elements};
    DLTensor state = tensor(gpu, x, batch, shape);
    bespoke::check(bespoke_sample(theta.get(), sampler.get(), &state, &state, network, &where));
}

// x(1) of samples of all `thetas` in one batch, at whatever stages: half of them join late, so that neighbours differ.
std::vector<char> mixed(Counted *gpu, const std::vector<bespoke::theta> &thetas, const Batch &batch) {
    const std::vector<char> from = noise(batch);
    std::vector<char> start = from, velocities(batch.bytes());
    std::unique_ptr<Room> there, velocities_there;
    char *x = start.data(), *u = velocities.data();
    if (gpu != nullptr) {
        there = std::make_unique<Room>(*gpu, batch.bytes());
        velocities_there = std::make_unique<Room>(*gpu, batch.bytes());
        there->fill(from);
        x = static_cast<char *>(there->get());
        u = static_cast<char *>(velocities_there->get());
    }
    bespoke::sampler sampler = sampler_on(gpu, thetas[0]);
    Where where{gpu};
    std::int64_t one[2] = {1, batch.elements}, all[2] = {0, batch.elements};
    const auto row = [&](std::int64_t i) {
        return tensor(gpu, x + static_cast<std::size_t>(i) * batch.row_bytes(), batch, one);
    };
    const auto join = [&](std::int64_t i) {
        const DLTensor state = row(i);
        bespoke::check(
            bespoke_sampler_join(sampler.get(), thetas[static_cast<std::size_t>(i) % thetas.size()].get(), &state));
    };
    std::int64_t joined = 0;
    for (; joined < batch.rows / 2; joined++) join(joined);
    for (;;) {
        if (joined < batch.rows) join(joined++);
        const DLTensor *t = nullptr, *states = nullptr;
        bespoke::check(bespoke_sampler_query(sampler.get(), &t, &states));
        if (t == nullptr && joined == batch.rows) break;
        if (t == nullptr) continue;
        all[0] = joined;
        DLTensor velocity = tensor(gpu, u, batch, all);
        network(&where, t, states, &velocity);
        bespoke::check(bespoke_sampler_update(sampler.get(), &velocity));
    }
    all[0] = batch.rows;
    DLTensor end = tensor(gpu, x, batch, all);
    bespoke::check(bespoke_sampler_finish(sampler.get(), &end));
    return gpu != nullptr ? there->read() : start;
}

// ---- What is checked.

class Checks {
public:
    void say(bool good, const std::string &what) {
        std::printf("%s: %s\n", what.c_str(), good ? "yes" : "NO");
        failed_ = failed_ || !good;
    }
    bool failed() const { return failed_; }

private:
    bool failed_ = false;
};

// Every solver and dtype gives host memory's bits, of arrays that can be read four numbers at a time and of others.
void agreement(Counted &gpu, const std::vector<bespoke::theta> &thetas, Checks &checks) {
    for (const DLDataType dtype : TYPES) {
        bool same = true;
        for (const bespoke::theta &theta : thetas) {
            const bespoke::sampler here = sampler_on(nullptr, theta), there = sampler_on(&gpu, theta);
            for (const std::int64_t elements : {7, 4096}) {
                const Batch batch{3, elements, dtype};
                std::vector<char> expected = noise(batch);
                Room x(gpu, batch.bytes());
                x.fill(expected);
                solve(nullptr, theta, here, batch, expected.data());
                solve(&gpu, theta, there, batch, x.get());
                same = same && x.read() == expected;
            }
        }
        checks.say(same, std::to_string(thetas.size()) + " solvers, " + name_of(dtype) + ", give host memory's bits");
        // Lists of parts that travel with the launch, in either size, and that go by way of memory.
        bool mixed_same = true;
        for (const std::int64_t rows : {4, 40, 400}) {
            const Batch batch{rows, 20, dtype};
            mixed_same = mixed_same && mixed(nullptr, thetas, batch) == mixed(&gpu, thetas, batch);
        }
        checks.say(mixed_same, "samples of all of them in one batch, " + name_of(dtype) + ", give host memory's bits");
    }
}

// One launch an update and one for its times, no memory after the first solve, and no wait at all.
void counts(Counted &gpu, const bespoke::theta &theta, Checks &checks) {
    const Batch batch{4, 4 * 64 * 64, TYPES[0]};
    Room x(gpu, batch.bytes());
    x.fill(noise(batch));
    const bespoke::sampler sampler = sampler_on(&gpu, theta);
    solve(&gpu, theta, sampler, batch, x.get());
    wait_for(gpu.stream());
    const unsigned launches = gpu.launches, allocations = gpu.allocations, waits_before = waited();
    solve(&gpu, theta, sampler, batch, x.get());
    const unsigned nfe = theta.info().nfe, launched = gpu.launches - launches;
    checks.say(launched == 2 * nfe, "launches an evaluation, the update and its times: " +
                                        std::to_string(static_cast<double>(launched) / nfe) + ", expected 2");
    checks.say(gpu.allocations == allocations, "nothing is allocated in a second solve");
    checks.say(waited() == waits_before, "nothing waits inside a solve");
}

// Rates of an update, in bytes a second, as a share of a copy's.
void bandwidth(Counted &gpu, Checks &checks) {
    constexpr double GOAL = 0.8;
    // Far more than any cache holds.
    const std::size_t bytes = ON_GPU ? std::size_t(256) << 20 : std::size_t(1) << 20;
    constexpr int ARRAYS = 5, REPEATS = 10;
    std::vector<std::unique_ptr<Room>> arrays;
    const std::vector<char> zeros(bytes);
    for (int i = 0; i < ARRAYS; i++) {
        arrays.push_back(std::make_unique<Room>(gpu, bytes));
        arrays.back()->fill(zeros);
    }
    const auto best = [&](auto run) {
        double least = std::numeric_limits<double>::infinity();
        for (int i = 0; i < REPEATS; i++) least = std::min(least, seconds(gpu.stream(), run));
        return least;
    };
    const auto good = [](int answer) {
        if (answer != 0) throw std::runtime_error("an operation answered " + std::to_string(answer));
    };
    const double copied = best([&] { good(gpu.ops.copy(gpu.ops.context, arrays[0]->get(), arrays[1]->get(), bytes)); });
    const double copy_rate = 2.0 * static_cast<double>(bytes) / copied;
    std::printf("a copy: %.0f GB/s\n", copy_rate * 1e-9);
    for (const DLDataType dtype : TYPES) {
        for (const int terms : {2, 3, 4}) {
            std::vector<bespoke_device_term> list;
            for (int t = 0; t < terms; t++) list.push_back({arrays[static_cast<std::size_t>(t)]->get(), 0.5, dtype, 0});
            const bespoke_device_sum sum{arrays[0]->get(), dtype, 0, static_cast<std::uint32_t>(terms), 0};
            const bespoke_device_part part{bytes * 8 / dtype.bits, 0, 1};
            const bespoke_device_combination launch{sizeof launch, 1,    1,          static_cast<std::uint32_t>(terms),
                                                    &part,         &sum, list.data()};
            const double spent = best([&] { good(gpu.ops.combine(gpu.ops.context, &launch)); });
            const double share = static_cast<double>(bytes) * (terms + 1) / spent / copy_rate;
            const std::string what = "an update of " + std::to_string(terms) + " terms, " + name_of(dtype) + ", at " +
                                     std::to_string(share) + " of a copy's rate";
            if (ON_GPU)
                checks.say(share >= GOAL, what + ", at least 0.8");
            else
                std::printf("%s\n", what.c_str());
        }
    }
}

// A whole solve as a graph, replayed on other noise, is the solve of that noise.
void graph(Counted &gpu, const bespoke::theta &theta, Checks &checks) {
#if defined(BESPOKE_CUDA_ON_HOST)
    (void)gpu, (void)theta, (void)checks;
    std::puts("a whole solve as a graph: on a GPU alone");
#else
    const Batch batch{4, 4 * 64 * 64, TYPES[0]};
    Room x(gpu, batch.bytes());
    const bespoke::sampler sampler = sampler_on(&gpu, theta);
    const auto plainly = [&](const std::vector<char> &start) {
        x.fill(start);
        solve(&gpu, theta, sampler, batch, x.get());
        return x.read();
    };
    (void)plainly(noise(batch));
    cudaGraph_t captured = nullptr;
    cudaGraphExec_t ready = nullptr;
    // Whatever waits, or allocates, makes the capture fail.
    must(cudaStreamBeginCapture(gpu.stream(), cudaStreamCaptureModeGlobal), "beginning a capture");
    solve(&gpu, theta, sampler, batch, x.get());
    must(cudaStreamEndCapture(gpu.stream(), &captured), "ending a capture");
    must(cudaGraphInstantiate(&ready, captured, 0), "making the graph");
    bool same = true;
    for (int i = 0; i < 3; i++) {
        const std::vector<char> start = noise(batch, i), expected = plainly(start);
        x.fill(start);
        must(cudaGraphLaunch(ready, gpu.stream()), "launching the graph");
        same = same && x.read() == expected;
    }
    checks.say(same,
               "a whole solve of " + std::to_string(theta.info().nfe) + " evaluations as a graph gives the same bits");
    must(cudaGraphExecDestroy(ready), "freeing the graph");
    must(cudaGraphDestroy(captured), "freeing the graph");
#endif
}

int run(int count, char **paths) {
    std::vector<bespoke::theta> thetas;
    for (const char *name : {"euler", "midpoint", "heun", "rk4", "ab3", "ddim", "dpm-solver-2", "dpm++2m", "dpm++3m",
                             "unipc", "deis2", "ipndm"})
        thetas.push_back(bespoke::theta::solver(name, 12, "vp"));
    for (int i = 1; i < count; i++) thetas.push_back(bespoke::theta::load(paths[i]));
    Counted gpu(new_stream());
    Checks checks;
    agreement(gpu, thetas, checks);
    counts(gpu, thetas.back(), checks);
    bandwidth(gpu, checks);
    graph(gpu, thetas.back(), checks);
    return checks.failed() ? 1 : 0;
}

}  // namespace

int main(int count, char **paths) {
    try {
        return run(count, paths);
    } catch (const std::exception &failure) {
        std::fprintf(stderr, "check: %s\n", failure.what());
        return 1;
    }
}
