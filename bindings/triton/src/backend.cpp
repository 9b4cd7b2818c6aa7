// What Triton calls.

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine.hpp"
#include "metrics.hpp"
#include "model.hpp"
#include "request.hpp"

namespace {

using namespace bespoke_triton;

/// The GPU of an instance; -1 for none.
int gpu_of(TRITONBACKEND_ModelInstance *instance) {
    TRITONSERVER_InstanceGroupKind kind{};
    std::int32_t device = 0;
    check(TRITONBACKEND_ModelInstanceKind(instance, &kind));
    check(TRITONBACKEND_ModelInstanceDeviceId(instance, &device));
    return kind == TRITONSERVER_INSTANCEGROUPKIND_GPU ? device : -1;
}

/// Where an instance's samples are: in its GPU's memory, or, as nullptr, the host's.
std::shared_ptr<device> place_of(int gpu) {
    // The tests' own: instances on the processor have a device too.
    const bool tests = std::getenv("BESPOKE_TRITON_TEST_DEVICE") != nullptr;  // NOLINT(concurrency-mt-unsafe)
    if (gpu < 0 && !tests) return nullptr;
    auto library = gpu_library::find();
    if (library) return std::make_shared<device>(std::move(library), gpu < 0 ? 0 : gpu);
    log(TRITONSERVER_LOG_WARN,
        "there is no libbespoke_cuda.so beside the backend: states, noise and samples of a GPU's instances are host "
        "memory");
    return nullptr;
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
        auto next = std::make_unique<request>(instance, requests[i], engine.place());
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
        const int gpu = gpu_of(instance);
        auto place = place_of(gpu);
        auto velocity = gpu < 0 ? own->on("cpu") : own->on("cuda:" + std::to_string(gpu), place);
        auto made = std::make_unique<engine>(*own, instance, std::move(velocity), std::move(place));
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
