#include "model.hpp"

namespace bespoke_triton {

namespace {

nlohmann::json config_of(TRITONBACKEND_Model *handle) {
    TRITONSERVER_Message *message = nullptr;
    check(TRITONBACKEND_ModelConfig(handle, 1, &message));
    return take_json(message);
}

void set_config(TRITONBACKEND_Model *handle, const nlohmann::json &config) {
    const std::string text = config.dump();
    TRITONSERVER_Message *message = nullptr;
    check(TRITONSERVER_MessageNewFromSerializedJson(&message, text.data(), text.size()));
    TRITONSERVER_Error *error = TRITONBACKEND_ModelSetConfig(handle, 1, message);
    log_error(TRITONSERVER_MessageDelete(message), "freeing a message");
    check(error);
}

}  // namespace

model::model(TRITONBACKEND_Model *handle) {
    TRITONBACKEND_ArtifactType artifact{};
    const char *repository = nullptr;
    std::uint64_t version = 0;
    check(TRITONBACKEND_ModelRepository(handle, &artifact, &repository));
    check(TRITONBACKEND_ModelVersion(handle, &version));
    check(TRITONBACKEND_ModelServer(handle, &server_));
    TRITONBACKEND_Backend *backend = nullptr;
    void *families = nullptr;
    check(TRITONBACKEND_ModelBackend(handle, &backend));
    check(TRITONBACKEND_BackendState(backend, &families));

    nlohmann::json config = config_of(handle);
    settings_ = read_settings(config, repository, version);
    opened_ = on("cpu");
    const bespoke_model_properties info = opened_->model().info();
    signature_ = std::make_unique<const bespoke_triton::signature>(info);
    bool may_complete = false;
    check(TRITONBACKEND_ModelAutoCompleteConfig(handle, &may_complete));
    if (may_complete && complete(config, *signature_)) {
        set_config(handle, config);
        settings_ = read_settings(config, repository, version);
    }
    check_tensors(config, *signature_);

    null_class_ = info.null_class;
    initial_scale_ = info.initial_scale;
    if (settings_.guidance_scale != 1.0 && !signature_->guided())
        throw invalid("parameter guidance_scale", std::to_string(settings_.guidance_scale),
                      "1: the card has no null_class, nor an input with a null, to guide from");
    solvers_ = std::make_unique<bespoke_triton::catalogue>(settings_, info);
    metrics_ = static_cast<metric_families *>(families)->of(settings_.name, std::to_string(version));
}

std::shared_ptr<const velocity> model::on(const std::string &device, std::shared_ptr<bespoke_triton::device> place) {
    const std::lock_guard lock(mutex_);
    if (place && !settings_.velocity_model.empty()) {
        opened_.reset();
        return std::make_shared<const velocity>(settings_, server_, device, std::move(place));
    }
    auto &known = velocities_[device];
    auto found = known.lock();
    if (!found) known = found = std::make_shared<const velocity>(settings_, server_, device, nullptr);
    // Where the instances are elsewhere, the host's copy is not kept.
    opened_.reset();
    return found;
}

}  // namespace bespoke_triton
