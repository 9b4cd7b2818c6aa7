// A Triton server in this program, as far as a backend asks: one model, its requests, and another model that it calls. It
// has GPU memory, which the real server of the tests has not.

#ifndef FAKE_SERVER_HPP
#define FAKE_SERVER_HPP

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "triton_api.h"

struct TRITONSERVER_Error {
    TRITONSERVER_Error_Code code;
    std::string message;
};
struct TRITONSERVER_Message {
    std::string text;
};
struct TRITONBACKEND_Backend {
    void *state = nullptr;
};
/// What a tensor's numbers are, and where.
struct TRITONBACKEND_Input {
    std::string name;
    TRITONSERVER_DataType type;
    std::vector<std::int64_t> shape;
    const void *data;
    std::uint64_t bytes;
    bool on_gpu;
};
struct TRITONSERVER_InferenceRequest {
    std::vector<TRITONBACKEND_Input> inputs{};
    TRITONSERVER_InferenceRequestReleaseFn_t release = nullptr;
    TRITONSERVER_InferenceResponseCompleteFn_t complete = nullptr;
    TRITONSERVER_ResponseAllocator *allocator = nullptr;
    void *release_user = nullptr, *allocator_user = nullptr, *complete_user = nullptr;

    const TRITONBACKEND_Input &input(const std::string &name) const {
        for (const auto &input : inputs)
            if (input.name == name) return input;
        throw std::runtime_error("no input " + name);
    }
};
struct TRITONSERVER_InferenceResponse {
    TRITONBACKEND_Input output;
    TRITONSERVER_ResponseAllocator *allocator;
};
struct TRITONSERVER_ResponseAllocator {
    TRITONSERVER_ResponseAllocatorAllocFn_t allocate;
    TRITONSERVER_ResponseAllocatorReleaseFn_t release;
};
struct TRITONSERVER_Server {
    std::string config;
    /// The other model: writes the output of a request into what the allocator of it gives.
    std::function<TRITONSERVER_InferenceResponse *(const TRITONSERVER_InferenceRequest &)> other;
};
struct TRITONBACKEND_Model {
    TRITONBACKEND_Backend *backend;
    TRITONSERVER_Server *server;
    std::string folder, config;
    void *state = nullptr;
};
struct TRITONBACKEND_ModelInstance {
    TRITONBACKEND_Model *model;
    TRITONSERVER_InstanceGroupKind kind;
    std::int32_t gpu;
    void *state = nullptr;
};
struct TRITONBACKEND_Output {
    std::vector<std::int64_t> shape;
    /// Where it is wanted, and where it came to be.
    void *buffer;
    bool on_gpu;
    std::vector<char> host{};
};
/// A request of a client's, and what was answered.
struct TRITONBACKEND_Request {
    std::vector<TRITONBACKEND_Input> inputs{};
    /// GPU memory for each response; none takes host memory.
    std::vector<void *> wanted{};

    std::vector<TRITONBACKEND_Output> outputs{};
    std::string error{};
    bool released = false;
};
struct TRITONBACKEND_ResponseFactory {
    TRITONBACKEND_Request *request;
};
struct TRITONBACKEND_Response {
    TRITONBACKEND_Request *request;
};

inline std::mutex fake_mutex;
inline std::condition_variable fake_released;

#define PLAIN extern "C" TRITONSERVER_Error *

extern "C" {
TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *message) {
    return new TRITONSERVER_Error{code, message};
}
void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error) { delete error; }
TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error) { return error->code; }
const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error) { return error->message.c_str(); }
const char *TRITONSERVER_DataTypeString(TRITONSERVER_DataType type) {
    static const std::map<TRITONSERVER_DataType, const char *> names{
        {TRITONSERVER_TYPE_FP32, "FP32"},   {TRITONSERVER_TYPE_FP16, "FP16"},   {TRITONSERVER_TYPE_BF16, "BF16"},
        {TRITONSERVER_TYPE_INT64, "INT64"}, {TRITONSERVER_TYPE_INT32, "INT32"}, {TRITONSERVER_TYPE_BYTES, "BYTES"}};
    return names.at(type);
}
TRITONSERVER_Parameter *TRITONSERVER_ParameterNew(const char *, TRITONSERVER_ParameterType, const void *) {
    return nullptr;
}
void TRITONSERVER_ParameterDelete(TRITONSERVER_Parameter *) {}
}

PLAIN TRITONSERVER_LogMessage(TRITONSERVER_LogLevel, const char *, int, const char *) { return nullptr; }
PLAIN TRITONSERVER_MessageNewFromSerializedJson(TRITONSERVER_Message **message, const char *base, size_t bytes) {
    *message = new TRITONSERVER_Message{std::string(base, bytes)};
    return nullptr;
}
PLAIN TRITONSERVER_MessageDelete(TRITONSERVER_Message *message) {
    delete message;
    return nullptr;
}
PLAIN TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message, const char **base, size_t *bytes) {
    *base = message->text.data();
    *bytes = message->text.size();
    return nullptr;
}

// No metrics.
PLAIN TRITONSERVER_MetricFamilyNew(TRITONSERVER_MetricFamily **, TRITONSERVER_MetricKind, const char *, const char *) {
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNSUPPORTED, "no metrics");
}
PLAIN TRITONSERVER_MetricFamilyDelete(TRITONSERVER_MetricFamily *) { return nullptr; }
PLAIN TRITONSERVER_MetricNew(TRITONSERVER_Metric **, TRITONSERVER_MetricFamily *, const TRITONSERVER_Parameter **,
                             uint64_t) {
    return nullptr;
}
PLAIN TRITONSERVER_MetricDelete(TRITONSERVER_Metric *) { return nullptr; }
PLAIN TRITONSERVER_MetricIncrement(TRITONSERVER_Metric *, double) { return nullptr; }

// The other model.
PLAIN TRITONSERVER_ServerModelIsReady(TRITONSERVER_Server *, const char *, int64_t, bool *ready) {
    *ready = true;
    return nullptr;
}
PLAIN TRITONSERVER_ServerModelConfig(TRITONSERVER_Server *server, const char *, int64_t, uint32_t,
                                     TRITONSERVER_Message **config) {
    *config = new TRITONSERVER_Message{server->config};
    return nullptr;
}
PLAIN TRITONSERVER_ResponseAllocatorNew(TRITONSERVER_ResponseAllocator **allocator,
                                        TRITONSERVER_ResponseAllocatorAllocFn_t allocate,
                                        TRITONSERVER_ResponseAllocatorReleaseFn_t release,
                                        TRITONSERVER_ResponseAllocatorStartFn_t) {
    *allocator = new TRITONSERVER_ResponseAllocator{allocate, release};
    return nullptr;
}
PLAIN TRITONSERVER_ResponseAllocatorDelete(TRITONSERVER_ResponseAllocator *allocator) {
    delete allocator;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestNew(TRITONSERVER_InferenceRequest **request, TRITONSERVER_Server *, const char *,
                                       int64_t) {
    *request = new TRITONSERVER_InferenceRequest{};
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestDelete(TRITONSERVER_InferenceRequest *request) {
    delete request;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestAddInput(TRITONSERVER_InferenceRequest *request, const char *name,
                                            TRITONSERVER_DataType type, const int64_t *shape, uint64_t rank) {
    request->inputs.push_back({name, type, {shape, shape + rank}, nullptr, 0, false});
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestAppendInputData(TRITONSERVER_InferenceRequest *request, const char *,
                                                   const void *base, size_t bytes, TRITONSERVER_MemoryType memory,
                                                   int64_t) {
    auto &input = request->inputs.back();
    input.data = base;
    input.bytes = bytes;
    input.on_gpu = memory == TRITONSERVER_MEMORY_GPU;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestAddRequestedOutput(TRITONSERVER_InferenceRequest *, const char *) { return nullptr; }
PLAIN TRITONSERVER_InferenceRequestSetReleaseCallback(TRITONSERVER_InferenceRequest *request,
                                                      TRITONSERVER_InferenceRequestReleaseFn_t release, void *user) {
    request->release = release;
    request->release_user = user;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceRequestSetResponseCallback(TRITONSERVER_InferenceRequest *request,
                                                       TRITONSERVER_ResponseAllocator *allocator, void *allocator_user,
                                                       TRITONSERVER_InferenceResponseCompleteFn_t complete,
                                                       void *complete_user) {
    request->allocator = allocator;
    request->allocator_user = allocator_user;
    request->complete = complete;
    request->complete_user = complete_user;
    return nullptr;
}
PLAIN TRITONSERVER_ServerInferAsync(TRITONSERVER_Server *server, TRITONSERVER_InferenceRequest *request,
                                    TRITONSERVER_InferenceTrace *) {
    request->complete(server->other(*request), TRITONSERVER_RESPONSE_COMPLETE_FINAL, request->complete_user);
    request->release(request, TRITONSERVER_REQUEST_RELEASE_ALL, request->release_user);
    return nullptr;
}
PLAIN TRITONSERVER_InferenceResponseDelete(TRITONSERVER_InferenceResponse *response) {
    delete response;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceResponseError(TRITONSERVER_InferenceResponse *) { return nullptr; }
PLAIN TRITONSERVER_InferenceResponseOutputCount(TRITONSERVER_InferenceResponse *, uint32_t *count) {
    *count = 1;
    return nullptr;
}
PLAIN TRITONSERVER_InferenceResponseOutput(TRITONSERVER_InferenceResponse *response, uint32_t, const char **name,
                                           TRITONSERVER_DataType *type, const int64_t **shape, uint64_t *rank,
                                           const void **base, size_t *bytes, TRITONSERVER_MemoryType *memory,
                                           int64_t *memory_id, void **user) {
    const auto &output = response->output;
    *name = output.name.c_str();
    *type = output.type;
    *shape = output.shape.data();
    *rank = output.shape.size();
    *base = output.data;
    *bytes = output.bytes;
    *memory = output.on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
    *memory_id = 0;
    *user = nullptr;
    return nullptr;
}

// The backend, its model and instances.
PLAIN TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor) {
    *major = TRITONBACKEND_API_VERSION_MAJOR;
    *minor = TRITONBACKEND_API_VERSION_MINOR;
    return nullptr;
}
PLAIN TRITONBACKEND_BackendState(TRITONBACKEND_Backend *backend, void **state) {
    *state = backend->state;
    return nullptr;
}
PLAIN TRITONBACKEND_BackendSetState(TRITONBACKEND_Backend *backend, void *state) {
    backend->state = state;
    return nullptr;
}
PLAIN TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(TRITONBACKEND_BackendAttribute *, bool) {
    return nullptr;
}
PLAIN TRITONBACKEND_ModelVersion(TRITONBACKEND_Model *, uint64_t *version) {
    *version = 1;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model, TRITONBACKEND_ArtifactType *type,
                                    const char **location) {
    *type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
    *location = model->folder.c_str();
    return nullptr;
}
PLAIN TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *model, uint32_t, TRITONSERVER_Message **config) {
    *config = new TRITONSERVER_Message{model->config};
    return nullptr;
}
PLAIN TRITONBACKEND_ModelAutoCompleteConfig(TRITONBACKEND_Model *, bool *complete) {
    *complete = true;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelSetConfig(TRITONBACKEND_Model *model, uint32_t, TRITONSERVER_Message *config) {
    model->config = config->text;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelServer(TRITONBACKEND_Model *model, TRITONSERVER_Server **server) {
    *server = model->server;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelBackend(TRITONBACKEND_Model *model, TRITONBACKEND_Backend **backend) {
    *backend = model->backend;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelState(TRITONBACKEND_Model *model, void **state) {
    *state = model->state;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *model, void *state) {
    model->state = state;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceKind(TRITONBACKEND_ModelInstance *instance, TRITONSERVER_InstanceGroupKind *kind) {
    *kind = instance->kind;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceDeviceId(TRITONBACKEND_ModelInstance *instance, int32_t *device) {
    *device = instance->gpu;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Model **model) {
    *model = instance->model;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance *instance, void **state) {
    *state = instance->state;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance *instance, void *state) {
    instance->state = state;
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceReportStatistics(TRITONBACKEND_ModelInstance *, TRITONBACKEND_Request *, bool,
                                                  uint64_t, uint64_t, uint64_t, uint64_t) {
    return nullptr;
}
PLAIN TRITONBACKEND_ModelInstanceReportBatchStatistics(TRITONBACKEND_ModelInstance *, uint64_t, uint64_t, uint64_t,
                                                       uint64_t, uint64_t) {
    return nullptr;
}

// Requests and responses.
PLAIN TRITONBACKEND_RequestParameterCount(TRITONBACKEND_Request *, uint32_t *count) {
    *count = 0;
    return nullptr;
}
PLAIN TRITONBACKEND_RequestParameter(TRITONBACKEND_Request *, uint32_t, const char **, TRITONSERVER_ParameterType *,
                                     const void **) {
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "there are no parameters");
}
PLAIN TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request *request, uint32_t *count) {
    *count = static_cast<std::uint32_t>(request->inputs.size());
    return nullptr;
}
PLAIN TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request *request, uint32_t index, TRITONBACKEND_Input **input) {
    *input = &request->inputs[index];
    return nullptr;
}
PLAIN TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request, uint32_t) {
    const std::lock_guard lock(fake_mutex);
    request->released = true;
    fake_released.notify_all();
    return nullptr;
}
PLAIN TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name, TRITONSERVER_DataType *type,
                                    const int64_t **shape, uint32_t *rank, uint64_t *bytes, uint32_t *buffers) {
    *name = input->name.c_str();
    *type = input->type;
    *shape = input->shape.data();
    *rank = static_cast<std::uint32_t>(input->shape.size());
    if (bytes != nullptr) *bytes = input->bytes;
    *buffers = 1;
    return nullptr;
}
PLAIN TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, uint32_t, const void **buffer, uint64_t *bytes,
                                TRITONSERVER_MemoryType *memory, int64_t *memory_id) {
    *buffer = input->data;
    *bytes = input->bytes;
    *memory = input->on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
    *memory_id = 0;
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseFactoryNew(TRITONBACKEND_ResponseFactory **factory, TRITONBACKEND_Request *request) {
    *factory = new TRITONBACKEND_ResponseFactory{request};
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseFactoryDelete(TRITONBACKEND_ResponseFactory *factory) {
    delete factory;
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseFactoryIsCancelled(TRITONBACKEND_ResponseFactory *, bool *cancelled) {
    *cancelled = false;
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseNewFromFactory(TRITONBACKEND_Response **response, TRITONBACKEND_ResponseFactory *factory) {
    *response = new TRITONBACKEND_Response{factory->request};
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseDelete(TRITONBACKEND_Response *response) {
    delete response;
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseSetStringParameter(TRITONBACKEND_Response *, const char *, const char *) { return nullptr; }
PLAIN TRITONBACKEND_ResponseSetIntParameter(TRITONBACKEND_Response *, const char *, int64_t) { return nullptr; }
PLAIN TRITONBACKEND_ResponseSetBoolParameter(TRITONBACKEND_Response *, const char *, bool) { return nullptr; }
PLAIN TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response, TRITONBACKEND_Output **output, const char *,
                                   TRITONSERVER_DataType, const int64_t *shape, uint32_t rank) {
    auto &request = *response->request;
    const std::size_t index = request.outputs.size();
    void *wanted = index < request.wanted.size() ? request.wanted[index] : nullptr;
    request.outputs.reserve(64);
    request.outputs.push_back({{shape, shape + rank}, wanted, wanted != nullptr});
    *output = &request.outputs.back();
    return nullptr;
}
PLAIN TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer, uint64_t bytes,
                                 TRITONSERVER_MemoryType *memory, int64_t *memory_id) {
    if (!output->on_gpu) {
        output->host.resize(bytes);
        output->buffer = output->host.data();
    }
    *buffer = output->buffer;
    *memory = output->on_gpu ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
    *memory_id = 0;
    return nullptr;
}
PLAIN TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response, uint32_t, TRITONSERVER_Error *error) {
    if (error != nullptr) response->request->error = error->message;
    delete response;
    return nullptr;
}

#endif
