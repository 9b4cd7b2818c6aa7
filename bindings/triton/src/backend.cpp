// What Triton calls.

#include <memory>
#include <string>
#include <vector>

#include "engine.hpp"
#include "metrics.hpp"
#include "model.hpp"
#include "request.hpp"

namespace {

using namespace bespoke_triton;

/// Where an instance computes, as bespoke_model_open has it.
std::string device_of(TRITONBACKEND_ModelInstance *instance) {
    TRITONSERVER_InstanceGroupKind kind{};
    std::int32_t device = 0;
    check(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    check(TRITONBACKEND_ModelInstanceDeviceId(instance, &device));
    return kind == TRITONSERVER_INSTANCEGROUPKIND_GPU ? "cuda:" + std::to_string(device) : "cpu";
}

model *model_of(TRITONBACKEND_ModelInstance *instance) {
    TRITONBACKEND_Model *handle = nullptr;
    void *state = nullptr;
    check(TRITONBACKEND_ModelInstanceModel(instance, &handle));
    check(TRITONBACKEND_ModelState(handle, &state));
    return static_cast<model *>(state);
}

/// Takes the requests over: from here every one is answered, and no error goes back for them.
void take(engine &engine, model &model, TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *const *requests,
          std::uint32_t count) noexcept {
    std::vector<std::unique_ptr<request>> good;
    for (std::uint32_t i = 0; i < count; i++) {
        auto next = std::make_unique<request>(instance, requests[i]);
        try {
            next->read(model);
            good.push_back(std::move(next));
        } catch (...) {
            next->fail(current_error());
        }
    }
    engine.run(std::move(good));
}

}  // namespace

extern "C" {

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend) {
    return guard([&] {
        std::uint32_t major = 0, minor = 0;
        check(TRITONBACKEND_ApiVersion(&major, &minor));
        check_api(major, minor);
        auto families = std::make_unique<metric_families>();
        check(TRITONBACKEND_BackendSetState(backend, families.get()));
        static_cast<void>(families.release());  // NOLINT(bugprone-unused-return-value): the server has it
        log(TRITONSERVER_LOG_INFO, "backend bespoke on libbespoke " + bespoke::version());
    });
}

TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend) {
    return guard([&] {
        void *state = nullptr;
        check(TRITONBACKEND_BackendState(backend, &state));
        delete static_cast<metric_families *>(state);
    });
}

TRITONSERVER_Error *TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *,
                                                      TRITONBACKEND_BackendAttribute *attributes) {
    return TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attributes, true);
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *handle) {
    return guard([&] {
        auto loaded = std::make_unique<model>(handle);
        check(TRITONBACKEND_ModelSetState(handle, loaded.get()));
        static_cast<void>(loaded.release());  // NOLINT(bugprone-unused-return-value): the server has it
    });
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *handle) {
    return guard([&] {
        void *state = nullptr;
        check(TRITONBACKEND_ModelState(handle, &state));
        delete static_cast<model *>(state);
    });
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *instance) {
    return guard([&] {
        model *own = model_of(instance);
        auto made = std::make_unique<engine>(*own, instance, own->on(device_of(instance)));
        check(TRITONBACKEND_ModelInstanceSetState(instance, made.get()));
        static_cast<void>(made.release());  // NOLINT(bugprone-unused-return-value): the server has it
    });
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *instance) {
    return guard([&] {
        void *state = nullptr;
        check(TRITONBACKEND_ModelInstanceState(instance, &state));
        delete static_cast<engine *>(state);
    });
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                       TRITONBACKEND_Request **requests, const std::uint32_t count) {
    return guard([&] {
        void *state = nullptr;
        check(TRITONBACKEND_ModelInstanceState(instance, &state));
        take(*static_cast<engine *>(state), *model_of(instance), instance, requests, count);
    });
}

}  // extern "C"
