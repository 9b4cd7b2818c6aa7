// The backend's instances on a GPU, in a server and on a GPU that are not there (fake_server.hpp, fake_cuda.c): a stray
// access to a sample's memory crashes.
//
//     bespoke-gpu-test BACKEND LIBBESPOKE_CUDA LIBVELOCITY FOLDER
//     bespoke-gpu-test BACKEND LIBBESPOKE_CUDA LIBVELOCITY FOLDER stray

#include <dlfcn.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "bespoke_cuda.h"
#include "fake_device.h"
#include "fake_server.hpp"

namespace {

void expect(bool holds, const std::string &what) {
    if (holds) return;
    std::printf("not so: %s\n", what.c_str());
    std::exit(1);
}

void ok(TRITONSERVER_Error *error) {
    if (error != nullptr) expect(false, error->message);
}

template <class Function>
Function symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    expect(found != nullptr, name);
    return reinterpret_cast<Function>(found);
}

void *open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) expect(false, dlerror());
    return library;
}

/// The GPU of fake_cuda.c.
struct gpu {
    explicit gpu(const char *path) : library(open(path)) {
        symbol<decltype(&bespoke_cuda_open)>(library, "bespoke_cuda_open")(&context);
        symbol<decltype(&bespoke_cuda_ops)>(library, "bespoke_cuda_ops")(&context, &ops);
    }

    void copy(void *to, const void *from, std::size_t bytes) {
        expect(symbol<decltype(&bespoke_cuda_copy)>(library, "bespoke_cuda_copy")(&context, to, from, bytes) == 0,
               "a copy");
    }
    void *memory(const void *from, std::size_t bytes) {
        void *made = nullptr;
        expect(ops.allocate(ops.context, bytes, &made) == 0, "an allocation");
        if (from != nullptr) copy(made, from, bytes);
        return made;
    }
    enum { allocations, launches, crossings, held, counted };
    std::array<unsigned, counted> counts() {
        std::array<unsigned, counted> found{};
        symbol<void (*)(unsigned *)>(library, "fake_counts")(found.data());
        return found;
    }

    void *library;
    bespoke_cuda context{};
    bespoke_device_ops ops{};
};

gpu *the_gpu = nullptr;
bool strays = false;
unsigned asked_on_gpu = 0, asked_on_host = 0;
constexpr std::int64_t SIZE = 4;

std::vector<float> floats(const TRITONBACKEND_Input &input) {
    const bool narrow = input.type == TRITONSERVER_TYPE_FP16;
    std::vector<char> bytes(input.bytes);
    if (input.on_gpu) {
        the_gpu->copy(bytes.data(), input.data, bytes.size());
    } else {
        std::memcpy(bytes.data(), input.data, bytes.size());
    }
    std::vector<float> numbers(bytes.size() / (narrow ? 2 : 4));
    const DLDataType type{kDLFloat, static_cast<std::uint8_t>(narrow ? 16 : 32), 1};
    for (std::size_t i = 0; i < numbers.size(); i++) numbers[i] = static_cast<float>(fake_get(bytes.data(), type, i));
    return numbers;
}

/// The served network: u = class / 10 + t - x / 2, NaN for class 3 from t = 0.45 on.
TRITONSERVER_InferenceResponse *network(const TRITONSERVER_InferenceRequest &request) {
    const auto &x = request.input("X"), &t = request.input("T"), &of_class = request.input("CLASS");
    (x.on_gpu ? asked_on_gpu : asked_on_host)++;
    expect(!t.on_gpu && !of_class.on_gpu, "times and classes are host memory");
    if (strays) expect(*static_cast<const volatile float *>(x.data) == 0.0F, "nothing stops a stray access");
    const auto states = floats(x), times = floats(t);
    std::vector<char> output(x.bytes);
    const DLDataType type{kDLFloat, static_cast<std::uint8_t>(x.type == TRITONSERVER_TYPE_FP16 ? 16 : 32), 1};
    for (std::size_t i = 0; i < states.size(); i++) {
        const std::size_t row = i / SIZE;
        const auto number = static_cast<const std::int64_t *>(of_class.data)[row];
        const float u = number == 3 && times[row] > 0.45F
                            ? NAN
                            : static_cast<float>(number) / 10.0F + times[row] - states[i] / 2.0F;
        fake_put(output.data(), type, i, u);
    }
    void *buffer = nullptr, *user = nullptr;
    TRITONSERVER_MemoryType memory = x.on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
    std::int64_t memory_id = 0;
    ok(request.allocator->allocate(request.allocator, "U", output.size(), memory, 0, request.allocator_user, &buffer,
                                   &user, &memory, &memory_id));
    const bool on_gpu = memory == TRITONSERVER_MEMORY_GPU;
    expect(on_gpu == x.on_gpu, "the output is wanted where the states are");
    if (on_gpu) {
        the_gpu->copy(buffer, output.data(), output.size());
    } else {
        std::memcpy(buffer, output.data(), output.size());
    }
    return new TRITONSERVER_InferenceResponse{{"U", x.type, x.shape, buffer, output.size(), on_gpu}, request.allocator};
}

std::string served(const std::string &type) {
    const auto tensor = [](const std::string &name, const std::string &data_type) {
        return R"({"name": ")" + name + R"(", "data_type": ")" + data_type + R"(", "dims": [1]})";
    };
    return R"({"max_batch_size": 3, "input": [)" + tensor("X", type) + "," + tensor("T", "TYPE_FP32") + "," +
           tensor("CLASS", "TYPE_INT64") + R"(], "output": [)" + tensor("U", type) + "]}";
}

/// A model of the backend with one instance.
class loaded {
public:
    loaded(const char *backend, TRITONSERVER_Server &server, const std::string &folder, const std::string &parameters,
           bool on_gpu, bool decoupled)
        : library_(open(backend)) {
        model_ = {&backend_, &server, folder,
                  R"({"name": "model", "max_batch_size": 8, "parameters": {)" + parameters + "}" +
                      (decoupled ? R"(, "model_transaction_policy": {"decoupled": true})" : "") + "}"};
        instance_ = {&model_, on_gpu ? TRITONSERVER_INSTANCEGROUPKIND_GPU : TRITONSERVER_INSTANCEGROUPKIND_CPU, 0};
        ok(call<TRITONBACKEND_Backend>("TRITONBACKEND_Initialize", &backend_));
        ok(call<TRITONBACKEND_Model>("TRITONBACKEND_ModelInitialize", &model_));
        ok(call<TRITONBACKEND_ModelInstance>("TRITONBACKEND_ModelInstanceInitialize", &instance_));
    }
    ~loaded() {
        ok(call<TRITONBACKEND_ModelInstance>("TRITONBACKEND_ModelInstanceFinalize", &instance_));
        ok(call<TRITONBACKEND_Model>("TRITONBACKEND_ModelFinalize", &model_));
        ok(call<TRITONBACKEND_Backend>("TRITONBACKEND_Finalize", &backend_));
    }
    loaded(const loaded &) = delete;
    loaded &operator=(const loaded &) = delete;

    void run(std::vector<TRITONBACKEND_Request *> requests) {
        ok(symbol<TRITONSERVER_Error *(*)(TRITONBACKEND_ModelInstance *, TRITONBACKEND_Request **, std::uint32_t)>(
            library_, "TRITONBACKEND_ModelInstanceExecute")(&instance_, requests.data(),
                                                            static_cast<std::uint32_t>(requests.size())));
        std::unique_lock lock(fake_mutex);
        for (const auto *request : requests) fake_released.wait(lock, [&] { return request->released; });
    }

private:
    template <class T>
    TRITONSERVER_Error *call(const char *name, T *object) {
        return symbol<TRITONSERVER_Error *(*)(T *)>(library_, name)(object);
    }

    void *library_;
    TRITONBACKEND_Backend backend_{};
    TRITONBACKEND_Model model_{};
    TRITONBACKEND_ModelInstance instance_{};
};

/// A client's request, whose numbers it keeps.
class order {
public:
    order(std::vector<float> noise, std::vector<std::int64_t> classes, std::vector<float> scales,
          std::vector<std::int64_t> nfes, bool on_gpu, std::size_t responses)
        : noise_(std::move(noise)), classes_(std::move(classes)), scales_(std::move(scales)), nfes_(std::move(nfes)) {
        const auto rows = static_cast<std::int64_t>(classes_.size());
        const std::size_t bytes = noise_.size() * sizeof(float);
        const void *data = on_gpu ? the_gpu->memory(noise_.data(), bytes) : noise_.data();
        request.inputs = {
            {"NOISE", TRITONSERVER_TYPE_FP32, {rows, SIZE}, data, bytes, on_gpu},
            {"CLASS", TRITONSERVER_TYPE_INT64, {rows, 1}, classes_.data(), classes_.size() * 8, false},
            {"GUIDANCE_SCALE", TRITONSERVER_TYPE_FP32, {rows, 1}, scales_.data(), scales_.size() * 4, false},
            {"NFE", TRITONSERVER_TYPE_INT64, {rows, 1}, nfes_.data(), nfes_.size() * 8, false}};
        if (on_gpu)
            for (std::size_t i = 0; i < responses; i++) request.wanted.push_back(the_gpu->memory(nullptr, bytes));
    }

    /// Of response `i`.
    std::vector<float> samples(std::size_t i) {
        const auto &output = request.outputs.at(i);
        std::vector<float> numbers(noise_.size());
        if (output.on_gpu) {
            the_gpu->copy(numbers.data(), output.buffer, numbers.size() * sizeof(float));
        } else {
            std::memcpy(numbers.data(), output.buffer, numbers.size() * sizeof(float));
        }
        return numbers;
    }

    TRITONBACKEND_Request request{};

private:
    std::vector<float> noise_;
    std::vector<std::int64_t> classes_;
    std::vector<float> scales_;
    std::vector<std::int64_t> nfes_;
};

std::vector<float> noise(std::size_t rows) {
    std::vector<float> numbers(rows * SIZE);
    for (std::size_t i = 0; i < numbers.size(); i++) numbers[i] = std::sin(1.7F * static_cast<float>(i)) * 1.5F;
    return numbers;
}

/// What a served model, or a library, gives for three requests at once: of guided and plain samples, of different nfe, and
/// one whose velocity is no number at some time.
std::vector<std::vector<float>> answers(const char *backend, TRITONSERVER_Server &server, const std::string &folder,
                                        const std::string &parameters, bool on_gpu, bool tensors_on_gpu) {
    loaded model(backend, server, folder, parameters, on_gpu, false);
    std::vector<std::vector<float>> all;
    for (int again = 0; again < 2; again++) {
        order plain(noise(2), {1, 8}, {1, 1}, {6, 6}, tensors_on_gpu, 1);
        order guided(noise(3), {2, 0, 5}, {1, 3.5F, 2}, {10, 4, 10}, tensors_on_gpu, 1);
        order failing(noise(2), {1, 3}, {1, 1}, {8, 8}, tensors_on_gpu, 1);
        const auto before = the_gpu->counts();
        model.run({&plain.request, &guided.request, &failing.request});
        const auto after = the_gpu->counts();
        for (order *good : {&plain, &guided}) {
            expect(good->request.error.empty(), good->request.error);
            all.push_back(good->samples(0));
        }
        expect(failing.request.error.find(" a NaN or an infinity") != std::string::npos, failing.request.error);
        if (tensors_on_gpu) {
            // Two copies of each call are the network's own, which is in host memory.
            const unsigned calls = asked_on_gpu;
            expect(after[gpu::crossings] - before[gpu::crossings] == 2 * calls, "nothing crosses to the host");
        }
        asked_on_gpu = 0;
    }
    return all;
}

void same(const std::vector<std::vector<float>> &found, const std::vector<std::vector<float>> &expected, float within) {
    expect(found.size() == expected.size(), "as many answers");
    for (std::size_t i = 0; i < found.size(); i++)
        for (std::size_t k = 0; k < expected[i].size(); k++)
            expect(std::fabs(found[i].at(k) - expected[i][k]) <= within, "the host's samples");
}

void previews(const char *backend, TRITONSERVER_Server &server, const std::string &folder,
              const std::string &parameters) {
    std::vector<std::vector<float>> found[2];
    for (const bool on_gpu : {false, true}) {
        loaded model(backend, server, folder, parameters, on_gpu, true);
        order order(noise(2), {1, 8}, {1, 2}, {5, 5}, on_gpu, 5);
        model.run({&order.request});
        expect(order.request.error.empty() && order.request.outputs.size() == 5, "four predictions and the samples");
        for (std::size_t i = 0; i < 5; i++) found[on_gpu].push_back(order.samples(i));
    }
    same(found[1], found[0], 2e-6F);
}

/// Of an evaluation: the update of all samples, and the velocity from the network's output; nothing is stacked where all
/// samples are of one request.
void launches(const char *backend, TRITONSERVER_Server &server, const std::string &folder,
              const std::string &parameters) {
    loaded model(backend, server, folder, parameters, true, false);
    order one(noise(3), {1, 8, 4}, {1, 1, 1}, {6, 6, 4}, true, 1);
    const auto before = the_gpu->counts();
    model.run({&one.request});
    expect(the_gpu->counts()[gpu::launches] - before[gpu::launches] == 2 * 6, "two launches an evaluation");
}

void refusals(const char *backend, TRITONSERVER_Server &server, const std::string &folder,
              const std::string &parameters) {
    auto bad = noise(2);
    bad[SIZE + 1] = INFINITY;
    order infinite(bad, {1, 1}, {1, 1}, {4, 4}, true, 1), elsewhere(noise(1), {1}, {1}, {4}, true, 1);
    loaded there(backend, server, folder, parameters, true, false),
        here(backend, server, folder, parameters, false, false);
    there.run({&infinite.request});
    expect(infinite.request.error == "NOISE is inf at number 5, expected finite numbers", infinite.request.error);
    here.run({&elsewhere.request});
    expect(elsewhere.request.error == "NOISE lies in GPU memory, expected host memory", elsewhere.request.error);
    // Of an input that goes to the host as it is, the GPU's memory is read.
    order classes(noise(1), {4}, {1}, {4}, true, 1), plain(noise(1), {4}, {1}, {4}, true, 1);
    auto &input = classes.request.inputs[1];
    input.data = the_gpu->memory(input.data, input.bytes);
    input.on_gpu = true;
    there.run({&classes.request, &plain.request});
    expect(classes.request.error.empty(), classes.request.error);
    same({classes.samples(0)}, {plain.samples(0)}, 0);
}

}  // namespace

int main(int count, char **arguments) {
    if (count < 5) return 2;
    const char *backend = arguments[1];
    strays = count > 5;
    gpu gpu(arguments[2]);
    the_gpu = &gpu;
    setenv("BESPOKE_CUDA_LIBRARY", arguments[2], 1);
    const std::filesystem::path folder = std::filesystem::path(arguments[4]) / "model";
    std::filesystem::create_directories(folder / "1");
    std::ofstream(folder / "1" / "card.json")
        << R"({"format": "bespoke-model", "version": 1, "runtime": "host", "shape": [4], "output": "velocity",)"
        << R"( "scheduler": {"name": "fm-ot"}, "classes": 10, "null_class": 10})";
    const std::string common = R"("card": {"string_value": "card.json"}, "solver": {"string_value": "dpm++2m@10"}, )";
    const std::string of_model = common + R"("velocity_model": {"string_value": "network"})";
    const std::string of_library = common + R"("velocity_library": {"string_value": ")" + arguments[3] + R"("})";

    TRITONSERVER_Server server{served("TYPE_FP32"), network}, narrow{served("TYPE_FP16"), network};
    const auto held = gpu.counts()[gpu::held];
    if (!strays) {
        const auto here = answers(backend, server, folder, of_model, false, false);
        expect(asked_on_host > 0 && gpu.counts()[gpu::held] == held, "an instance on the processor uses no GPU");
        asked_on_host = 0;
        same(answers(backend, server, folder, of_model, true, false), here, 0);
        expect(gpu.counts()[gpu::held] == held, "an instance that ends gives all its memory back");
        same(answers(backend, server, folder, of_model, true, true), here, 0);
        expect(asked_on_host == 0, "the network is asked on the GPU");
        // The library's samples go to the host and back, since nothing says that it takes the GPU's.
        same(answers(backend, server, folder, of_library, true, false), here, 0);
        const auto rounded = answers(backend, narrow, folder, of_model, false, false);
        same(answers(backend, narrow, folder, of_model, true, true), rounded, 0);
        previews(backend, server, folder, of_model);
        launches(backend, server, folder, of_model);
        refusals(backend, server, folder, of_model);
        std::puts("ok");
        return 0;
    }
    answers(backend, server, folder, of_model, true, true);
    return 0;
}
