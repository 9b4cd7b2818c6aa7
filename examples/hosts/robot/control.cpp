// A control loop that makes its next chunk of actions while it runs the last: one evaluation of the network a step.
//
//     control THETA [--steps N]                      the network is this program's own
//     control THETA CARD OBSERVATION [--steps N]     a policy's action expert, exported by expert.py: ONNX or .pt2
//
// Says how long the steps took, the worst among them, and who allocated or waited meanwhile. OBSERVATION is a folder of
// expert.py's: what the policy keeps of an observation, and noise; the first chunk is written there as actions.raw.

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bespoke.hpp"
#include "chunk.hpp"
#include "counted.hpp"

namespace {

/// Numbers of a file, all of it.
std::vector<char> read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes;
    for (std::array<char, 4096> block{}; file.read(block.data(), block.size()), file.gcount() > 0;)
        bytes.insert(bytes.end(), block.data(), block.data() + file.gcount());
    if (!file.eof()) throw std::runtime_error(path + ": cannot be read");
    return bytes;
}

/// What a policy keeps of one observation, by the names of its network's inputs.
class observation {
public:
    /// `observation.txt` has a line for each input, its name, dtype and sizes; `observation.raw` their numbers in turn.
    explicit observation(const std::string &folder) {
        const std::string path = folder + "/observation.txt";
        const std::vector<char> text = read(path), numbers = read(folder + "/observation.raw");
        std::istringstream lines(std::string(text.begin(), text.end()));
        std::size_t at = 0;
        for (std::string line; std::getline(lines, line);) at += add(line, numbers, at, path);
        if (at != numbers.size())
            throw std::runtime_error(path + ": describes " + std::to_string(at) + " bytes, but there are " +
                                     std::to_string(numbers.size()));
    }

    /// As the library takes it; its numbers stay here.
    bespoke::condition condition() const { return condition_; }

private:
    /// Bytes of the input that `line` describes, which begin at `at`.
    std::size_t add(const std::string &line, const std::vector<char> &numbers, std::size_t at,
                    const std::string &path) {
        std::istringstream words(line);
        std::string name, dtype;
        std::vector<std::int64_t> shape{1};
        words >> name >> dtype;
        std::size_t size = dtype == "bool" ? 1 : 4;
        if (dtype != "bool" && dtype != "float32")
            throw std::runtime_error(path + ": " + name + " is of dtype " + dtype + ", expected bool or float32");
        const std::size_t left = numbers.size() - at;
        bool within = size <= left;
        for (std::int64_t extent = 0; within && words >> extent;) {
            within = extent > 0 && static_cast<std::size_t>(extent) <= left / size;
            shape.push_back(extent);
            size *= static_cast<std::size_t>(extent);
        }
        if (!within || !words.eof())
            throw std::runtime_error(path + ": has \"" + line + "\", expected sizes of no more than the " +
                                     std::to_string(left) + " bytes that are left");
        // Memory of its own, aligned for every type.
        const auto first = numbers.begin() + static_cast<std::ptrdiff_t>(at);
        const auto [place, fresh] =
            numbers_.emplace(name, std::vector<char>(first, first + static_cast<std::ptrdiff_t>(size)));
        if (!fresh) throw std::runtime_error(path + ": has " + name + " twice");
        if (dtype == "bool") {
            keep(name, reinterpret_cast<bool *>(place->second.data()), shape);
        } else {
            keep(name, reinterpret_cast<float *>(place->second.data()), shape);
        }
        return size;
    }

    template <class T>
    void keep(const std::string &name, T *numbers, const std::vector<std::int64_t> &shape) {
        const bespoke::tensor_view<const T> view(numbers, shape.data(), shape.size());
        condition_.inputs.emplace(name, bespoke::any_view(view));
    }

    std::map<std::string, std::vector<char>> numbers_;
    bespoke::condition condition_;
};

/// A small network of this program's own: two layers, with weights made up once.
class own_network {
public:
    own_network(std::size_t width, unsigned seed) : in_((width + 1) * hidden), out_(width * hidden), values_(hidden) {
        std::mt19937 engine(seed);
        std::normal_distribution<float> normal;
        for (float &weight : in_) weight = normal(engine) / std::sqrt(static_cast<float>(width));
        for (float &weight : out_) weight = normal(engine) / std::sqrt(static_cast<float>(hidden));
    }

    template <class T, class X, class U>
    void operator()(T t, X x, U u) {
        const std::size_t width = x.size();
        for (std::size_t h = 0; h < hidden; h++) {
            const float *weight = in_.data() + h * (width + 1);
            float sum = weight[width] * t[0];
            for (std::size_t i = 0; i < width; i++) sum += weight[i] * x[i];
            values_[h] = std::tanh(sum);
        }
        for (std::size_t i = 0; i < width; i++) {
            const float *weight = out_.data() + i * hidden;
            float sum = -x[i];
            for (std::size_t h = 0; h < hidden; h++) sum += weight[h] * values_[h];
            u[i] = sum;
        }
    }

private:
    static constexpr std::size_t hidden = 256;
    std::vector<float> in_, out_, values_;
};

/// What the loop did, beside moving a robot.
struct report {
    std::vector<double> seconds;
    std::uint64_t chunks = 0, in_network = 0, beside_network = 0;
    std::int64_t waits = 0;
};

/// Times that this thread gave its core away to wait for something.
std::int64_t waits() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/// `steps` control steps of a robot that goes where it is told; `noise` fills what a chunk begins with.
template <class Network, class Noise>
report control(robot::chunk_solver &solver, std::int64_t horizon, std::size_t steps, Network &network, Noise &&noise) {
    using clock = std::chrono::steady_clock;
    report found;
    found.seconds.assign(steps, 0.0);
    std::vector<float> start(solver.size()), running(solver.size()), robot(solver.size() / horizon);
    std::copy_n(solver.actions(), running.size(), running.begin());
    const auto counted_network = [&](auto t, auto x, auto u) {
        const std::uint64_t before = counted::total();
        network(t, x, u);
        found.in_network += counted::total() - before;
    };
    noise(start);
    solver.begin(start.data());
    std::size_t at = 0;
    counted::clear();
    counted::on();
    const std::int64_t waited = waits();
    for (std::size_t step = 0; step < steps; step++) {
        const auto begun = clock::now();
        std::copy_n(running.data() + at * robot.size(), robot.size(), robot.data());  // the command
        at = std::min(at + 1, static_cast<std::size_t>(horizon) - 1);
        if (solver.advance(counted_network)) {
            std::copy_n(solver.actions(), running.size(), running.begin());
            at = 0;
            found.chunks++;
            noise(start);
            solver.begin(start.data());
        }
        found.seconds[step] = std::chrono::duration<double>(clock::now() - begun).count();
    }
    found.waits = waits() - waited;
    counted::off();
    found.beside_network = counted::total() - found.in_network;
    return found;
}

void print(report found, std::uint32_t evaluations) {
    std::sort(found.seconds.begin(), found.seconds.end());
    const auto at = [&](double share) {
        return found.seconds[static_cast<std::size_t>(share * static_cast<double>(found.seconds.size() - 1))] * 1e6;
    };
    std::printf("%zu steps, %llu chunks of %u evaluations\n", found.seconds.size(),
                static_cast<unsigned long long>(found.chunks), evaluations);
    std::printf("a step: median %.1f us, 99.9 %% within %.1f us, the worst %.1f us\n", at(0.5), at(0.999), at(1.0));
    std::printf("allocations: %llu beside the network, %llu in it; waits: %lld\n",
                static_cast<unsigned long long>(found.beside_network),
                static_cast<unsigned long long>(found.in_network), static_cast<long long>(found.waits));
    for (const counted::caller &caller : counted::callers()) {
        if (caller.count == 0) continue;
        const char *name = std::strrchr(caller.path, '/');
        std::printf("  %llu by %s\n", static_cast<unsigned long long>(caller.count),
                    name == nullptr ? caller.path : name + 1);
    }
}

/// A whole chunk from the noise of `folder`, written beside it.
template <class Network>
void first_chunk(robot::chunk_solver &solver, Network &network, const std::string &folder) {
    const std::vector<char> bytes = read(folder + "/noise.raw");
    if (bytes.size() != solver.size() * sizeof(float))
        throw std::runtime_error(folder + "/noise.raw: has " + std::to_string(bytes.size()) + " bytes, expected " +
                                 std::to_string(solver.size() * sizeof(float)));
    std::vector<float> noise(solver.size());
    std::memcpy(noise.data(), bytes.data(), bytes.size());
    solver.begin(noise.data());
    while (!solver.advance(network)) {}
    std::ofstream file(folder + "/actions.raw", std::ios::binary);
    file.write(reinterpret_cast<const char *>(solver.actions()), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw std::runtime_error(folder + "/actions.raw: cannot be written");
}

/// What every chunk begins with: standard normal noise.
class normal_noise {
public:
    explicit normal_noise(unsigned seed) : engine_(seed) {}

    void operator()(std::vector<float> &numbers) {
        for (float &number : numbers) number = normal_(engine_);
    }

private:
    std::mt19937 engine_;
    std::normal_distribution<float> normal_;
};

void run_own(const bespoke::theta &theta, std::size_t steps) {
    constexpr std::int64_t horizon = 16, width = 8;
    robot::chunk_solver solver(theta, horizon, width);
    own_network network(solver.size(), 1);
    print(control(solver, horizon, steps, network, normal_noise(7)), theta.nfe());
}

void run_card(const bespoke::theta &theta, const std::string &card, const std::string &folder, std::size_t steps) {
    const observation seen(folder);
    const auto model = bespoke::model::open(card);
    const auto info = model.info();
    if (info.ndim != 2 || info.shape[0] < 1 || info.shape[1] < 1)
        throw std::runtime_error(card + ": its samples are no chunks, expected the shape [horizon, numbers]");
    robot::chunk_solver solver(theta, info.shape[0], info.shape[1]);
    auto network = model.field(seen.condition());
    first_chunk(solver, network, folder);
    print(control(solver, info.shape[0], steps, network, normal_noise(7)), theta.nfe());
}

/// A number of steps; their times take 8 bytes each.
std::size_t steps_of(const std::string &text) {
    const bool number = text.size() <= 8 && text.find_first_not_of("0123456789") == std::string::npos;
    const std::size_t steps = number && !text.empty() ? std::stoul(text) : 0;
    if (steps == 0) throw std::invalid_argument("--steps is " + text + ", expected 1 to 99999999");
    return steps;
}

}  // namespace

int main(int count, char *const *arguments) try {
    std::vector<std::string> files(arguments + 1, arguments + count);
    std::size_t steps = 10000;
    const auto option = std::find(files.begin(), files.end(), "--steps");
    if (option != files.end() && option + 1 != files.end()) {
        steps = steps_of(*(option + 1));
        files.erase(option, option + 2);
    }
    if (files.size() != 1 && files.size() != 3) {
        std::fprintf(stderr, "usage: control THETA [CARD OBSERVATION] [--steps N]\n");
        return 2;
    }
    const auto theta = bespoke::theta::load(files[0]);
    if (files.size() == 1) {
        run_own(theta, steps);
    } else {
        run_card(theta, files[1], files[2], steps);
    }
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
