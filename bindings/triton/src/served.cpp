#include "served.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <list>
#include <utility>

#include "half.hpp"
#include "signature.hpp"

namespace bespoke_triton {

using nlohmann::json;

/// A batch, or a part of one, on its way through the other model.
struct served_network::call {
    explicit call(std::shared_ptr<const device> place) : place(std::move(place)), halves_there(this->place) {}

    /// A tensor on its way, the batch first; what was converted for it is kept.
    struct tensor {
        std::string name;
        TRITONSERVER_DataType type;
        std::vector<std::int64_t> shape;
        const void *data;
        std::size_t bytes;
        /// Where it is, or nullptr for host memory.
        const device *place = nullptr;
        std::vector<std::uint16_t> halves;
        std::vector<std::int32_t> integers;
        std::unique_ptr<storage> halves_there;
    };
    std::list<tensor> inputs;

    tensor &add(const std::string &name, TRITONSERVER_DataType type, std::vector<std::int64_t> shape, const void *data,
                std::size_t bytes) {
        tensor &own = inputs.emplace_back();
        own.name = name;
        own.type = type;
        own.shape = std::move(shape);
        own.data = data;
        own.bytes = bytes;
        return own;
    }

    /// Where states and output are, or nullptr for host memory.
    std::shared_ptr<const device> place;

    /// Where the output is wanted, and as what.
    std::vector<std::int64_t> shape;
    TRITONSERVER_DataType type = TRITONSERVER_TYPE_FP32;
    void *output = nullptr;
    std::size_t bytes = 0;
    std::vector<std::uint16_t> halves;
    storage halves_there;
    const std::string *output_name = nullptr;

    /// The states, which are where `place` says.
    void add_states(const std::string &name, TRITONSERVER_DataType as, std::vector<std::int64_t> shape,
                    const float *data, std::size_t count) {
        if (!place) {
            add_floats(name, as, std::move(shape), data, count);
            return;
        }
        tensor &own = add(name, as, std::move(shape), data, count * sizeof(float));
        own.place = place.get();
        if (as == TRITONSERVER_TYPE_FP32) return;
        own.halves_there = std::make_unique<storage>(place);
        own.halves_there->resize((count + 1) / 2);
        own.data = own.halves_there->data();
        own.bytes = count * sizeof(std::uint16_t);
        place->convert(own.halves_there->data(), half_type(as), data, bespoke::dtype_of<float>::value, count);
    }

    void add_floats(const std::string &name, TRITONSERVER_DataType as, std::vector<std::int64_t> shape,
                    const float *data, std::size_t count) {
        tensor &own = add(name, as, std::move(shape), data, count * sizeof(float));
        if (as == TRITONSERVER_TYPE_FP32) return;
        own.halves = to_half(data, count, as);
        own.data = own.halves.data();
        own.bytes = count * sizeof(std::uint16_t);
    }

    void add_classes(const std::string &name, TRITONSERVER_DataType as, std::vector<std::int64_t> shape,
                     const std::int64_t *data, std::size_t count) {
        tensor &own = add(name, as, std::move(shape), data, count * sizeof(std::int64_t));
        if (as == TRITONSERVER_TYPE_INT64) return;
        own.integers.assign(data, data + count);
        own.data = own.integers.data();
        own.bytes = count * sizeof(std::int32_t);
    }

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
            if (own.place) {
                *type = TRITONSERVER_MEMORY_GPU;
                *type_id = own.place->index();
            }
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

/// The classes of a card that says `classes`.
bool is_class(const bespoke_input &input) {
    const DLTensor &tensor = *input.tensor;
    return std::strcmp(input.name, "class") == 0 && tensor.ndim == 1 && tensor.dtype.code == kDLInt &&
           tensor.dtype.bits == 64;
}

/// A type as configurations write it.
std::string config_name(TRITONSERVER_DataType type) { return std::string("TYPE_") + TRITONSERVER_DataTypeString(type); }

struct response_deleter {
    void operator()(TRITONSERVER_InferenceResponse *response) const noexcept {
        log_error(TRITONSERVER_InferenceResponseDelete(response), "freeing a response");
    }
};

}  // namespace

served_network::served_network(TRITONSERVER_Server *server, const settings &settings,
                               std::shared_ptr<const device> place)
    : place_(std::move(place)),
      server_(server),
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

served_network::resolved served_network::resolve(const bespoke_call &asked) {
    const std::lock_guard lock(mutex_);
    if (known_) return *known_;
    bool ready = false;
    check(TRITONSERVER_ServerModelIsReady(server_, model_.c_str(), version_, &ready));
    if (!ready) throw failure(TRITONSERVER_ERROR_UNAVAILABLE, "velocity_model " + model_ + " is not ready");
    TRITONSERVER_Message *message = nullptr;
    check(TRITONSERVER_ServerModelConfig(server_, model_.c_str(), version_, 1, &message));
    const json config = take_json(message);

    const std::string where = "velocity_model " + model_ + ": ";
    const auto expect = [&](const char *kind, const std::string &name,
                            const std::vector<TRITONSERVER_DataType> &types) {
        const json *tensor = tensor_of(config, kind, name);
        if (tensor == nullptr) throw failure(TRITONSERVER_ERROR_INVALID_ARG, where + "has no " + kind + ' ' + name);
        const std::string given = tensor->value("data_type", "");
        for (const TRITONSERVER_DataType type : types)
            if (given == config_name(type)) return type;
        throw invalid(where + kind + ' ' + name + ".data_type", given, config_name(types.front()));
    };
    if (config.contains("model_transaction_policy") && config["model_transaction_policy"].value("decoupled", false))
        throw failure(TRITONSERVER_ERROR_UNSUPPORTED, where + "is decoupled, expected one response to each request");
    const std::vector<TRITONSERVER_DataType> floats{TRITONSERVER_TYPE_FP32, TRITONSERVER_TYPE_FP16,
                                                    TRITONSERVER_TYPE_BF16};
    resolved other{};
    other.x_type = expect("input", x_, floats);
    other.time_type = expect("input", t_, floats);
    other.output_type = expect("output", output_, floats);
    other.max_batch = config.value("max_batch_size", 0);
    other.time_is_column = other.max_batch > 0 || tensor_of(config, "input", t_)->at("dims").size() > 1;
    for (std::uint32_t i = 0; i < asked.input_count; i++) {
        const bespoke_input &input = asked.inputs[i];
        if (is_class(input)) {
            other.class_type = expect("input", class_, {TRITONSERVER_TYPE_INT64, TRITONSERVER_TYPE_INT32});
        } else {
            expect("input", input.name, {type_of(input.name, input.tensor->dtype)});
        }
    }
    known_ = std::make_unique<resolved>(other);
    return other;
}

TRITONSERVER_InferenceRequest *served_network::request(call &call) {
    TRITONSERVER_InferenceRequest *request = nullptr;
    check(TRITONSERVER_InferenceRequestNew(&request, server_, model_.c_str(), version_));
    try {
        for (const call::tensor &input : call.inputs) {
            check(TRITONSERVER_InferenceRequestAddInput(request, input.name.c_str(), input.type, input.shape.data(),
                                                        input.shape.size()));
            const bool there = input.place != nullptr;
            check(TRITONSERVER_InferenceRequestAppendInputData(
                request, input.name.c_str(), input.data, input.bytes,
                there ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU, there ? input.place->index() : 0));
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

void served_network::send(call &call) {
    TRITONSERVER_InferenceRequest *made = request(call);
    // Whoever reads the states knows nothing of what is queued.
    if (place_) {
        try {
            place_->wait();
        } catch (...) {
            log_error(TRITONSERVER_InferenceRequestDelete(made), "freeing a request");
            throw;
        }
    }
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
        if (type != call.type)
            throw invalid(where + "output " + output_ + ".datatype", TRITONSERVER_DataTypeString(type),
                          TRITONSERVER_DataTypeString(call.type));
        if (given != call.shape || bytes != call.bytes)
            throw invalid(where + "output " + output_ + ".shape", shape_text(given), shape_text(call.shape));
        if (base == call.output) return;
        if (place_) {
            place_->copy(call.output, base, bytes);
        } else {
            std::memcpy(call.output, base, bytes);
        }
        return;
    }
    throw failure(TRITONSERVER_ERROR_INTERNAL, where + "the response has no output " + output_);
}

void served_network::forward(const bespoke::call &asked) {
    const bespoke_call &given = asked.get();
    const DLTensor &x = *given.x;
    const std::int64_t batch = x.shape[0];
    try {
        const resolved other = resolve(given);
        const std::int64_t most = other.max_batch > 0 ? other.max_batch : batch;
        for (std::int64_t first = 0; first < batch; first += most) {
            const std::int64_t rows = std::min(most, batch - first);
            const std::size_t elements = asked.x().size() / static_cast<std::size_t>(batch);
            const std::size_t numbers = static_cast<std::size_t>(rows) * elements;
            const std::size_t before = static_cast<std::size_t>(first) * elements;
            call part(place_);
            part.shape.assign(x.shape, x.shape + x.ndim);
            part.shape[0] = rows;
            fill(part, given, other, first, rows);
            part.type = other.output_type;
            part.output_name = &output_;
            float *output = asked.output().data() + before;
            if (other.output_type == TRITONSERVER_TYPE_FP32) {
                part.output = output;
                part.bytes = numbers * sizeof(float);
                send(part);
            } else {
                send_narrow(part, output, numbers);
            }
        }
    } catch (...) {
        // It may have been loaded anew, with another configuration.
        const std::lock_guard lock(mutex_);
        known_.reset();
        throw;
    }
}

/// Sends a call whose output has 16 bits a number.
void served_network::send_narrow(call &part, float *output, std::size_t count) {
    part.bytes = count * sizeof(std::uint16_t);
    if (place_) {
        part.halves_there.resize((count + 1) / 2);
        part.output = part.halves_there.data();
        send(part);
        place_->convert(output, bespoke::dtype_of<float>::value, part.output, half_type(part.type), count);
        // The halves go with the call.
        place_->wait();
    } else {
        part.halves.resize(count);
        part.output = part.halves.data();
        send(part);
        from_half(part.halves.data(), count, part.type, output);
    }
}

/// The tensors of the rows from `first` on.
void served_network::fill(call &part, const bespoke_call &given, const resolved &other, std::int64_t first,
                          std::int64_t rows) const {
    const auto count = static_cast<std::size_t>(rows), skipped = static_cast<std::size_t>(first);
    const std::size_t elements =
        bespoke::tensor_view<const float>(*given.x).size() / static_cast<std::size_t>(given.x->shape[0]);
    const std::vector<std::int64_t> column{rows, 1}, plain{rows};
    part.add_states(x_, other.x_type, part.shape, static_cast<const float *>(given.x->data) + skipped * elements,
                    count * elements);
    part.add_floats(t_, other.time_type, other.time_is_column ? column : plain,
                    static_cast<const float *>(given.time->data) + skipped, count);
    for (std::uint32_t i = 0; i < given.input_count; i++) {
        const DLTensor &input = *given.inputs[i].tensor;
        if (is_class(given.inputs[i])) {
            part.add_classes(class_, other.class_type, other.time_is_column ? column : plain,
                             static_cast<const std::int64_t *>(input.data) + skipped, count);
            continue;
        }
        std::vector<std::int64_t> shape(input.shape, input.shape + input.ndim);
        shape[0] = rows;
        if (shape.size() == 1 && other.max_batch > 0) shape = column;
        const std::vector<std::int64_t> row(input.shape + 1, input.shape + input.ndim);
        const std::size_t row_bytes = count_of(row, SIZE_MAX / sizeof(double)) * bytes_of(input.dtype);
        part.add(given.inputs[i].name, type_of(given.inputs[i].name, input.dtype), std::move(shape),
                 static_cast<const char *>(input.data) + skipped * row_bytes, count * row_bytes);
    }
}

}  // namespace bespoke_triton
