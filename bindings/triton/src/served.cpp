#include "served.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <numeric>

namespace bespoke_triton {

using nlohmann::json;

/// A batch, or a part of one, on its way through the other model.
struct served_network::call {
    std::vector<std::int64_t> shape;
    std::int64_t rows = 0;
    std::size_t bytes = 0;
    const void *x = nullptr, *time = nullptr, *classes = nullptr;
    std::vector<std::int32_t> narrow_classes;
    /// Where the output is wanted.
    void *output = nullptr;
    const std::string *output_name = nullptr;

    std::mutex mutex;
    std::condition_variable changed;
    bool responded = false, released = false;
    TRITONSERVER_InferenceResponse *response = nullptr;

    /// Both: until the release, the inputs may be read.
    void wait() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return responded && released; });
    }

    static void complete(TRITONSERVER_InferenceResponse *response, const std::uint32_t flags, void *self) {
        auto &own = *static_cast<call *>(self);
        const std::lock_guard lock(own.mutex);
        if (response != nullptr && own.response != nullptr) {
            log_error(TRITONSERVER_InferenceResponseDelete(response), "freeing a response");
        } else if (response != nullptr) {
            own.response = response;
        }
        own.responded = own.responded || (flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL) != 0;
        own.changed.notify_all();
    }

    static void release(TRITONSERVER_InferenceRequest *request, const std::uint32_t, void *self) {
        log_error(TRITONSERVER_InferenceRequestDelete(request), "freeing a request");
        auto &own = *static_cast<call *>(self);
        const std::lock_guard lock(own.mutex);
        own.released = true;
        own.changed.notify_all();
    }

    /// Memory for an output: the place where it is wanted, if it fits.
    static TRITONSERVER_Error *allocate(TRITONSERVER_ResponseAllocator *, const char *name, std::size_t bytes,
                                        TRITONSERVER_MemoryType, std::int64_t, void *self, void **buffer,
                                        void **buffer_userp, TRITONSERVER_MemoryType *type, std::int64_t *type_id) {
        const auto &own = *static_cast<call *>(self);
        *type = TRITONSERVER_MEMORY_CPU;
        *type_id = 0;
        *buffer_userp = nullptr;
        *buffer = nullptr;
        if (bytes == 0) return nullptr;
        if (*own.output_name == name && bytes == own.bytes) {
            *buffer = own.output;
            return nullptr;
        }
        *buffer = *buffer_userp = std::malloc(bytes);
        return *buffer != nullptr ? nullptr
                                  : TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "memory cannot be had");
    }

    static TRITONSERVER_Error *free_buffer(TRITONSERVER_ResponseAllocator *, void *, void *buffer_userp, std::size_t,
                                           TRITONSERVER_MemoryType, std::int64_t) {
        std::free(buffer_userp);
        return nullptr;
    }
};

namespace {

const json *tensor_of(const json &config, const char *kind, const std::string &name) {
    if (!config.contains(kind)) return nullptr;
    for (const json &tensor : config.at(kind))
        if (tensor.value("name", "") == name) return &tensor;
    return nullptr;
}

struct response_deleter {
    void operator()(TRITONSERVER_InferenceResponse *response) const noexcept {
        log_error(TRITONSERVER_InferenceResponseDelete(response), "freeing a response");
    }
};

}  // namespace

served_network::served_network(TRITONSERVER_Server *server, const settings &settings)
    : server_(server),
      model_(settings.velocity_model),
      x_(settings.velocity_x),
      t_(settings.velocity_t),
      class_(settings.velocity_class),
      output_(settings.velocity_output),
      version_(settings.velocity_model_version) {
    if (model_ == settings.name) throw invalid("parameter velocity_model", '"' + model_ + '"', "another model");
    check(TRITONSERVER_ResponseAllocatorNew(&allocator_, call::allocate, call::free_buffer, nullptr));
}

served_network::~served_network() {
    log_error(TRITONSERVER_ResponseAllocatorDelete(allocator_), "freeing an allocator");
}

served_network::resolved served_network::resolve(bool with_classes) {
    const std::lock_guard lock(mutex_);
    if (known_) return *known_;
    bool ready = false;
    check(TRITONSERVER_ServerModelIsReady(server_, model_.c_str(), version_, &ready));
    if (!ready) throw failure(TRITONSERVER_ERROR_UNAVAILABLE, "velocity_model " + model_ + " is not ready");
    TRITONSERVER_Message *message = nullptr;
    check(TRITONSERVER_ServerModelConfig(server_, model_.c_str(), version_, 1, &message));
    const json config = take_json(message);

    const std::string where = "velocity_model " + model_ + ": ";
    const auto expect = [&](const char *kind, const std::string &name, std::vector<std::string> types) {
        const json *tensor = tensor_of(config, kind, name);
        if (tensor == nullptr) throw failure(TRITONSERVER_ERROR_INVALID_ARG, where + "has no " + kind + ' ' + name);
        const std::string type = tensor->value("data_type", "");
        if (std::find(types.begin(), types.end(), type) == types.end())
            throw invalid(where + kind + ' ' + name + ".data_type", type, types.front());
        return *tensor;
    };
    if (config.contains("model_transaction_policy") && config["model_transaction_policy"].value("decoupled", false))
        throw failure(TRITONSERVER_ERROR_UNSUPPORTED, where + "is decoupled, expected one response to each request");
    expect("input", x_, {"TYPE_FP32"});
    expect("output", output_, {"TYPE_FP32"});
    const json time = expect("input", t_, {"TYPE_FP32"});
    resolved other{};
    other.max_batch = config.value("max_batch_size", 0);
    other.time_is_column = other.max_batch > 0 || time.at("dims").size() > 1;
    other.class_type = TRITONSERVER_TYPE_INT64;
    if (with_classes && expect("input", class_, {"TYPE_INT64", "TYPE_INT32"}).at("data_type") == "TYPE_INT32")
        other.class_type = TRITONSERVER_TYPE_INT32;
    known_ = std::make_unique<resolved>(other);
    return other;
}

TRITONSERVER_InferenceRequest *served_network::request(call &call, const resolved &other) {
    TRITONSERVER_InferenceRequest *request = nullptr;
    check(TRITONSERVER_InferenceRequestNew(&request, server_, model_.c_str(), version_));
    try {
        const auto input = [&](const std::string &name, TRITONSERVER_DataType type, const std::int64_t *shape,
                               std::size_t rank, const void *data, std::size_t bytes) {
            check(TRITONSERVER_InferenceRequestAddInput(request, name.c_str(), type, shape, rank));
            check(TRITONSERVER_InferenceRequestAppendInputData(request, name.c_str(), data, bytes,
                                                               TRITONSERVER_MEMORY_CPU, 0));
        };
        const std::int64_t column[2] = {call.rows, 1};
        const std::size_t rank = other.time_is_column ? 2 : 1;
        const auto rows = static_cast<std::size_t>(call.rows);
        input(x_, TRITONSERVER_TYPE_FP32, call.shape.data(), call.shape.size(), call.x, call.bytes);
        input(t_, TRITONSERVER_TYPE_FP32, column, rank, call.time, rows * sizeof(float));
        if (call.classes != nullptr) {
            const bool narrow = other.class_type == TRITONSERVER_TYPE_INT32;
            const void *data = narrow ? call.narrow_classes.data() : call.classes;
            input(class_, other.class_type, column, rank, data, rows * (narrow ? 4 : 8));
        }
        check(TRITONSERVER_InferenceRequestAddRequestedOutput(request, output_.c_str()));
        check(TRITONSERVER_InferenceRequestSetReleaseCallback(request, call::release, &call));
        check(TRITONSERVER_InferenceRequestSetResponseCallback(request, allocator_, &call, call::complete, &call));
        return request;
    } catch (...) {
        log_error(TRITONSERVER_InferenceRequestDelete(request), "freeing a request");
        throw;
    }
}

void served_network::send(call &call, const resolved &other) {
    TRITONSERVER_InferenceRequest *made = request(call, other);
    TRITONSERVER_Error *refused = TRITONSERVER_ServerInferAsync(server_, made, nullptr);
    if (refused != nullptr) {
        // The server has taken the request only where it says nothing.
        log_error(TRITONSERVER_InferenceRequestDelete(made), "freeing a request");
        check(refused);
    }
    call.wait();
    const std::unique_ptr<TRITONSERVER_InferenceResponse, response_deleter> response(call.response);
    const std::string where = "velocity_model " + model_ + ": ";
    if (!response) throw failure(TRITONSERVER_ERROR_INTERNAL, where + "gave no response");
    if (TRITONSERVER_Error *error = TRITONSERVER_InferenceResponseError(response.get())) {
        // It belongs to the response.
        throw failure(TRITONSERVER_ErrorCode(error), where + TRITONSERVER_ErrorMessage(error));
    }
    std::uint32_t count = 0;
    check(TRITONSERVER_InferenceResponseOutputCount(response.get(), &count));
    for (std::uint32_t i = 0; i < count; i++) {
        const char *name = nullptr;
        TRITONSERVER_DataType type{};
        const std::int64_t *shape = nullptr;
        std::uint64_t rank = 0;
        const void *base = nullptr;
        std::size_t bytes = 0;
        TRITONSERVER_MemoryType memory{};
        std::int64_t memory_id = 0;
        void *userp = nullptr;
        check(TRITONSERVER_InferenceResponseOutput(response.get(), i, &name, &type, &shape, &rank, &base, &bytes,
                                                   &memory, &memory_id, &userp));
        if (output_ != name) continue;
        const std::vector<std::int64_t> given(shape, shape + rank);
        if (given != call.shape || bytes != call.bytes)
            throw invalid(where + "output " + output_ + ".shape", shape_text(given), shape_text(call.shape));
        if (base != call.output) std::memcpy(call.output, base, bytes);
        return;
    }
    throw failure(TRITONSERVER_ERROR_INTERNAL, where + "the response has no output " + output_);
}

void served_network::forward(const bespoke::call &asked) {
    const DLTensor &time = *asked.get().time, &x = *asked.get().x, &output = *asked.get().output;
    const std::int64_t *classes = asked.classes();
    const std::int64_t batch = x.shape[0];
    const std::int64_t elements =
        std::accumulate(x.shape + 1, x.shape + x.ndim, std::int64_t{1}, [](auto a, auto b) { return a * b; });
    try {
        const resolved other = resolve(classes != nullptr);
        const std::int64_t most = other.max_batch > 0 ? other.max_batch : batch;
        for (std::int64_t first = 0; first < batch; first += most) {
            call part;
            part.rows = std::min(most, batch - first);
            part.shape.assign(x.shape, x.shape + x.ndim);
            part.shape[0] = part.rows;
            part.bytes = static_cast<std::size_t>(part.rows * elements) * sizeof(float);
            part.x = static_cast<const float *>(x.data) + first * elements;
            part.time = static_cast<const float *>(time.data) + first;
            part.output = static_cast<float *>(output.data) + first * elements;
            part.output_name = &output_;
            if (classes != nullptr) {
                const auto *numbers = classes + first;
                part.classes = numbers;
                if (other.class_type == TRITONSERVER_TYPE_INT32)
                    part.narrow_classes.assign(numbers, numbers + part.rows);
            }
            send(part, other);
        }
    } catch (...) {
        // It may have been loaded anew, with another configuration.
        const std::lock_guard lock(mutex_);
        known_.reset();
        throw;
    }
}

}  // namespace bespoke_triton
