// The part of Triton's C API that this backend uses, declared here because no package carries the
// official headers. The API is stable within major version 1: names, types and numbers are as in
// tritonbackend.h 1.15 and tritonserver.h 1.29 or later. A build with -DTRITON_HEADERS=DIR takes the official ones.

#ifndef BESPOKE_TRITON_API_H
#define BESPOKE_TRITON_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRITONBACKEND_API_VERSION_MAJOR 1
#define TRITONBACKEND_API_VERSION_MINOR 15

struct TRITONSERVER_Error;
struct TRITONSERVER_InferenceRequest;
struct TRITONSERVER_InferenceResponse;
struct TRITONSERVER_InferenceTrace;
struct TRITONSERVER_Message;
struct TRITONSERVER_Metric;
struct TRITONSERVER_MetricFamily;
struct TRITONSERVER_Parameter;
struct TRITONSERVER_ResponseAllocator;
struct TRITONSERVER_Server;

struct TRITONBACKEND_Backend;
struct TRITONBACKEND_BackendAttribute;
struct TRITONBACKEND_Input;
struct TRITONBACKEND_Model;
struct TRITONBACKEND_ModelInstance;
struct TRITONBACKEND_Output;
struct TRITONBACKEND_Request;
struct TRITONBACKEND_Response;
struct TRITONBACKEND_ResponseFactory;

typedef enum {
    TRITONSERVER_TYPE_INVALID,
    TRITONSERVER_TYPE_BOOL,
    TRITONSERVER_TYPE_UINT8,
    TRITONSERVER_TYPE_UINT16,
    TRITONSERVER_TYPE_UINT32,
    TRITONSERVER_TYPE_UINT64,
    TRITONSERVER_TYPE_INT8,
    TRITONSERVER_TYPE_INT16,
    TRITONSERVER_TYPE_INT32,
    TRITONSERVER_TYPE_INT64,
    TRITONSERVER_TYPE_FP16,
    TRITONSERVER_TYPE_FP32,
    TRITONSERVER_TYPE_FP64,
    TRITONSERVER_TYPE_BYTES,
    TRITONSERVER_TYPE_BF16
} TRITONSERVER_DataType;

typedef enum {
    TRITONSERVER_MEMORY_CPU,
    TRITONSERVER_MEMORY_CPU_PINNED,
    TRITONSERVER_MEMORY_GPU
} TRITONSERVER_MemoryType;

typedef enum {
    TRITONSERVER_PARAMETER_STRING,
    TRITONSERVER_PARAMETER_INT,
    TRITONSERVER_PARAMETER_BOOL,
    TRITONSERVER_PARAMETER_DOUBLE,
    TRITONSERVER_PARAMETER_BYTES
} TRITONSERVER_ParameterType;

typedef enum {
    TRITONSERVER_INSTANCEGROUPKIND_AUTO,
    TRITONSERVER_INSTANCEGROUPKIND_CPU,
    TRITONSERVER_INSTANCEGROUPKIND_GPU,
    TRITONSERVER_INSTANCEGROUPKIND_MODEL
} TRITONSERVER_InstanceGroupKind;

typedef enum {
    TRITONSERVER_LOG_INFO,
    TRITONSERVER_LOG_WARN,
    TRITONSERVER_LOG_ERROR,
    TRITONSERVER_LOG_VERBOSE
} TRITONSERVER_LogLevel;

typedef enum {
    TRITONSERVER_ERROR_UNKNOWN,
    TRITONSERVER_ERROR_INTERNAL,
    TRITONSERVER_ERROR_NOT_FOUND,
    TRITONSERVER_ERROR_INVALID_ARG,
    TRITONSERVER_ERROR_UNAVAILABLE,
    TRITONSERVER_ERROR_UNSUPPORTED,
    TRITONSERVER_ERROR_ALREADY_EXISTS,
    TRITONSERVER_ERROR_CANCELLED
} TRITONSERVER_Error_Code;

typedef enum {
    TRITONSERVER_METRIC_KIND_COUNTER,
    TRITONSERVER_METRIC_KIND_GAUGE,
    TRITONSERVER_METRIC_KIND_HISTOGRAM
} TRITONSERVER_MetricKind;

typedef enum { TRITONSERVER_REQUEST_RELEASE_ALL = 1 } TRITONSERVER_RequestReleaseFlag;
typedef enum { TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1 } TRITONSERVER_ResponseCompleteFlag;
typedef enum { TRITONBACKEND_ARTIFACT_FILESYSTEM } TRITONBACKEND_ArtifactType;

// Errors and the log.
struct TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *message);
void TRITONSERVER_ErrorDelete(struct TRITONSERVER_Error *error);
TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(struct TRITONSERVER_Error *error);
const char *TRITONSERVER_ErrorMessage(struct TRITONSERVER_Error *error);
struct TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *file, int line,
                                                   const char *message);
const char *TRITONSERVER_DataTypeString(TRITONSERVER_DataType type);

// JSON documents.
struct TRITONSERVER_Error *TRITONSERVER_MessageNewFromSerializedJson(struct TRITONSERVER_Message **message,
                                                                     const char *base, size_t byte_size);
struct TRITONSERVER_Error *TRITONSERVER_MessageDelete(struct TRITONSERVER_Message *message);
struct TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(struct TRITONSERVER_Message *message, const char **base,
                                                               size_t *byte_size);

// Metrics.
struct TRITONSERVER_Parameter *TRITONSERVER_ParameterNew(const char *name, TRITONSERVER_ParameterType type,
                                                         const void *value);
void TRITONSERVER_ParameterDelete(struct TRITONSERVER_Parameter *parameter);
struct TRITONSERVER_Error *TRITONSERVER_MetricFamilyNew(struct TRITONSERVER_MetricFamily **family,
                                                        TRITONSERVER_MetricKind kind, const char *name,
                                                        const char *description);
struct TRITONSERVER_Error *TRITONSERVER_MetricFamilyDelete(struct TRITONSERVER_MetricFamily *family);
struct TRITONSERVER_Error *TRITONSERVER_MetricNew(struct TRITONSERVER_Metric **metric,
                                                  struct TRITONSERVER_MetricFamily *family,
                                                  const struct TRITONSERVER_Parameter **labels, uint64_t label_count);
struct TRITONSERVER_Error *TRITONSERVER_MetricDelete(struct TRITONSERVER_Metric *metric);
struct TRITONSERVER_Error *TRITONSERVER_MetricIncrement(struct TRITONSERVER_Metric *metric, double value);
struct TRITONSERVER_Error *TRITONSERVER_MetricSet(struct TRITONSERVER_Metric *metric, double value);

// Another model of the same server.
typedef struct TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorAllocFn_t)(
    struct TRITONSERVER_ResponseAllocator *allocator, const char *tensor_name, size_t byte_size,
    TRITONSERVER_MemoryType memory_type, int64_t memory_type_id, void *userp, void **buffer, void **buffer_userp,
    TRITONSERVER_MemoryType *actual_memory_type, int64_t *actual_memory_type_id);
typedef struct TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorReleaseFn_t)(
    struct TRITONSERVER_ResponseAllocator *allocator, void *buffer, void *buffer_userp, size_t byte_size,
    TRITONSERVER_MemoryType memory_type, int64_t memory_type_id);
typedef struct TRITONSERVER_Error *(*TRITONSERVER_ResponseAllocatorStartFn_t)(
    struct TRITONSERVER_ResponseAllocator *allocator, void *userp);
typedef void (*TRITONSERVER_InferenceRequestReleaseFn_t)(struct TRITONSERVER_InferenceRequest *request,
                                                         const uint32_t flags, void *userp);
typedef void (*TRITONSERVER_InferenceResponseCompleteFn_t)(struct TRITONSERVER_InferenceResponse *response,
                                                           const uint32_t flags, void *userp);

struct TRITONSERVER_Error *TRITONSERVER_ServerModelIsReady(struct TRITONSERVER_Server *server, const char *model_name,
                                                           int64_t model_version, bool *ready);
struct TRITONSERVER_Error *TRITONSERVER_ServerModelConfig(struct TRITONSERVER_Server *server, const char *model_name,
                                                          int64_t model_version, uint32_t config_version,
                                                          struct TRITONSERVER_Message **config);
struct TRITONSERVER_Error *TRITONSERVER_ServerInferAsync(struct TRITONSERVER_Server *server,
                                                         struct TRITONSERVER_InferenceRequest *request,
                                                         struct TRITONSERVER_InferenceTrace *trace);
struct TRITONSERVER_Error *TRITONSERVER_ResponseAllocatorNew(struct TRITONSERVER_ResponseAllocator **allocator,
                                                             TRITONSERVER_ResponseAllocatorAllocFn_t alloc_fn,
                                                             TRITONSERVER_ResponseAllocatorReleaseFn_t release_fn,
                                                             TRITONSERVER_ResponseAllocatorStartFn_t start_fn);
struct TRITONSERVER_Error *TRITONSERVER_ResponseAllocatorDelete(struct TRITONSERVER_ResponseAllocator *allocator);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestNew(struct TRITONSERVER_InferenceRequest **request,
                                                            struct TRITONSERVER_Server *server, const char *model_name,
                                                            int64_t model_version);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestDelete(struct TRITONSERVER_InferenceRequest *request);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestAddInput(struct TRITONSERVER_InferenceRequest *request,
                                                                 const char *name, TRITONSERVER_DataType type,
                                                                 const int64_t *shape, uint64_t dim_count);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestAppendInputData(struct TRITONSERVER_InferenceRequest *request,
                                                                        const char *name, const void *base,
                                                                        size_t byte_size,
                                                                        TRITONSERVER_MemoryType memory_type,
                                                                        int64_t memory_type_id);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestAddRequestedOutput(
    struct TRITONSERVER_InferenceRequest *request, const char *name);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetReleaseCallback(
    struct TRITONSERVER_InferenceRequest *request, TRITONSERVER_InferenceRequestReleaseFn_t release, void *userp);
struct TRITONSERVER_Error *TRITONSERVER_InferenceRequestSetResponseCallback(
    struct TRITONSERVER_InferenceRequest *request, struct TRITONSERVER_ResponseAllocator *allocator,
    void *allocator_userp, TRITONSERVER_InferenceResponseCompleteFn_t complete, void *complete_userp);
struct TRITONSERVER_Error *TRITONSERVER_InferenceResponseDelete(struct TRITONSERVER_InferenceResponse *response);
struct TRITONSERVER_Error *TRITONSERVER_InferenceResponseError(struct TRITONSERVER_InferenceResponse *response);
struct TRITONSERVER_Error *TRITONSERVER_InferenceResponseOutputCount(struct TRITONSERVER_InferenceResponse *response,
                                                                     uint32_t *count);
struct TRITONSERVER_Error *TRITONSERVER_InferenceResponseOutput(struct TRITONSERVER_InferenceResponse *response,
                                                                uint32_t index, const char **name,
                                                                TRITONSERVER_DataType *type, const int64_t **shape,
                                                                uint64_t *dim_count, const void **base,
                                                                size_t *byte_size, TRITONSERVER_MemoryType *memory_type,
                                                                int64_t *memory_type_id, void **userp);

// The backend, its models and their instances.
struct TRITONSERVER_Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor);
struct TRITONSERVER_Error *TRITONBACKEND_BackendState(struct TRITONBACKEND_Backend *backend, void **state);
struct TRITONSERVER_Error *TRITONBACKEND_BackendSetState(struct TRITONBACKEND_Backend *backend, void *state);
struct TRITONSERVER_Error *TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
    struct TRITONBACKEND_BackendAttribute *attributes, bool enabled);
struct TRITONSERVER_Error *TRITONBACKEND_ModelName(struct TRITONBACKEND_Model *model, const char **name);
struct TRITONSERVER_Error *TRITONBACKEND_ModelVersion(struct TRITONBACKEND_Model *model, uint64_t *version);
struct TRITONSERVER_Error *TRITONBACKEND_ModelRepository(struct TRITONBACKEND_Model *model,
                                                         TRITONBACKEND_ArtifactType *artifact, const char **location);
struct TRITONSERVER_Error *TRITONBACKEND_ModelConfig(struct TRITONBACKEND_Model *model, uint32_t config_version,
                                                     struct TRITONSERVER_Message **config);
struct TRITONSERVER_Error *TRITONBACKEND_ModelAutoCompleteConfig(struct TRITONBACKEND_Model *model, bool *complete);
struct TRITONSERVER_Error *TRITONBACKEND_ModelSetConfig(struct TRITONBACKEND_Model *model, uint32_t config_version,
                                                        struct TRITONSERVER_Message *config);
struct TRITONSERVER_Error *TRITONBACKEND_ModelServer(struct TRITONBACKEND_Model *model,
                                                     struct TRITONSERVER_Server **server);
struct TRITONSERVER_Error *TRITONBACKEND_ModelBackend(struct TRITONBACKEND_Model *model,
                                                      struct TRITONBACKEND_Backend **backend);
struct TRITONSERVER_Error *TRITONBACKEND_ModelState(struct TRITONBACKEND_Model *model, void **state);
struct TRITONSERVER_Error *TRITONBACKEND_ModelSetState(struct TRITONBACKEND_Model *model, void *state);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceName(struct TRITONBACKEND_ModelInstance *instance,
                                                           const char **name);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceKind(struct TRITONBACKEND_ModelInstance *instance,
                                                           TRITONSERVER_InstanceGroupKind *kind);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceDeviceId(struct TRITONBACKEND_ModelInstance *instance,
                                                               int32_t *device_id);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(struct TRITONBACKEND_ModelInstance *instance,
                                                            struct TRITONBACKEND_Model **model);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceState(struct TRITONBACKEND_ModelInstance *instance, void **state);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSetState(struct TRITONBACKEND_ModelInstance *instance,
                                                               void *state);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportStatistics(struct TRITONBACKEND_ModelInstance *instance,
                                                                       struct TRITONBACKEND_Request *request,
                                                                       bool success, uint64_t exec_start_ns,
                                                                       uint64_t compute_start_ns,
                                                                       uint64_t compute_end_ns, uint64_t exec_end_ns);
struct TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    struct TRITONBACKEND_ModelInstance *instance, uint64_t batch_size, uint64_t exec_start_ns,
    uint64_t compute_start_ns, uint64_t compute_end_ns, uint64_t exec_end_ns);

// Requests and responses.
struct TRITONSERVER_Error *TRITONBACKEND_RequestParameterCount(struct TRITONBACKEND_Request *request, uint32_t *count);
struct TRITONSERVER_Error *TRITONBACKEND_RequestParameter(struct TRITONBACKEND_Request *request, uint32_t index,
                                                          const char **key, TRITONSERVER_ParameterType *type,
                                                          const void **value);
struct TRITONSERVER_Error *TRITONBACKEND_RequestInputCount(struct TRITONBACKEND_Request *request, uint32_t *count);
struct TRITONSERVER_Error *TRITONBACKEND_RequestInputByIndex(struct TRITONBACKEND_Request *request, uint32_t index,
                                                             struct TRITONBACKEND_Input **input);
struct TRITONSERVER_Error *TRITONBACKEND_RequestRelease(struct TRITONBACKEND_Request *request, uint32_t release_flags);
struct TRITONSERVER_Error *TRITONBACKEND_InputProperties(struct TRITONBACKEND_Input *input, const char **name,
                                                         TRITONSERVER_DataType *type, const int64_t **shape,
                                                         uint32_t *dim_count, uint64_t *byte_size,
                                                         uint32_t *buffer_count);
struct TRITONSERVER_Error *TRITONBACKEND_InputBuffer(struct TRITONBACKEND_Input *input, uint32_t index,
                                                     const void **buffer, uint64_t *byte_size,
                                                     TRITONSERVER_MemoryType *memory_type, int64_t *memory_type_id);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryNew(struct TRITONBACKEND_ResponseFactory **factory,
                                                            struct TRITONBACKEND_Request *request);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryDelete(struct TRITONBACKEND_ResponseFactory *factory);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseFactoryIsCancelled(struct TRITONBACKEND_ResponseFactory *factory,
                                                                    bool *cancelled);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseNewFromFactory(struct TRITONBACKEND_Response **response,
                                                                struct TRITONBACKEND_ResponseFactory *factory);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseDelete(struct TRITONBACKEND_Response *response);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseSetStringParameter(struct TRITONBACKEND_Response *response,
                                                                    const char *name, const char *value);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseSetIntParameter(struct TRITONBACKEND_Response *response,
                                                                 const char *name, int64_t value);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseSetBoolParameter(struct TRITONBACKEND_Response *response,
                                                                  const char *name, bool value);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(struct TRITONBACKEND_Response *response,
                                                        struct TRITONBACKEND_Output **output, const char *name,
                                                        TRITONSERVER_DataType type, const int64_t *shape,
                                                        uint32_t dim_count);
struct TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(struct TRITONBACKEND_Output *output, void **buffer,
                                                      uint64_t byte_size, TRITONSERVER_MemoryType *memory_type,
                                                      int64_t *memory_type_id);
struct TRITONSERVER_Error *TRITONBACKEND_ResponseSend(struct TRITONBACKEND_Response *response, uint32_t send_flags,
                                                      struct TRITONSERVER_Error *error);

#ifdef __cplusplus
}
#endif

#endif
