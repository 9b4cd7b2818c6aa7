// A loaded model: its settings, its solvers, and its velocity on each device.

#ifndef BESPOKE_TRITON_MODEL_HPP
#define BESPOKE_TRITON_MODEL_HPP

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "catalogue.hpp"
#include "metrics.hpp"
#include "network.hpp"
#include "settings.hpp"

namespace bespoke_triton {

/// Shared by the instances of one model version.
class model {
public:
    /// Opens and checks everything that the configuration names, and completes it where Triton allows.
    explicit model(TRITONBACKEND_Model *handle);

    const bespoke_triton::settings &settings() const noexcept { return settings_; }
    const bespoke_triton::signature &signature() const noexcept { return *signature_; }
    std::int64_t classes() const noexcept { return signature_->classes(); }
    /// -1 where there is none.
    std::int64_t null_class() const noexcept { return null_class_; }
    double initial_scale() const noexcept { return initial_scale_; }
    bespoke_triton::catalogue &solvers() noexcept { return *solvers_; }
    const model_metrics &metrics() const noexcept { return *metrics_; }

    /// The velocity on a device, shared by the instances there. A served network that is asked in the memory of `place` is
    /// the instance's own: it has no weights that could be shared.
    std::shared_ptr<const velocity> on(const std::string &device,
                                       std::shared_ptr<bespoke_triton::device> place = nullptr);

private:
    bespoke_triton::settings settings_;
    TRITONSERVER_Server *server_ = nullptr;
    std::unique_ptr<const bespoke_triton::signature> signature_;
    std::int64_t null_class_ = -1;
    double initial_scale_ = 1.0;
    std::unique_ptr<bespoke_triton::catalogue> solvers_;
    std::shared_ptr<model_metrics> metrics_;
    std::mutex mutex_;
    std::map<std::string, std::weak_ptr<const velocity>> velocities_;
    /// What the checks at load opened, until the first instance comes.
    std::shared_ptr<const velocity> opened_;
};

}  // namespace bespoke_triton

#endif
