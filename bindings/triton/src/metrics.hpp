// Metrics on the server's own page, beside nv_inference_*.

#ifndef BESPOKE_TRITON_METRICS_HPP
#define BESPOKE_TRITON_METRICS_HPP

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "triton.hpp"

namespace bespoke_triton {

enum class metric : std::uint8_t {
    network_calls,
    network_rows,
    network_seconds,
    solver_seconds,
    cancelled,
    active_rows,
    count
};

class metric_families;

/// The metrics of one model version. Any thread. Without metrics in the server, calls do nothing.
class model_metrics {
public:
    model_metrics(const metric_families &families, const std::string &model, const std::string &version);
    ~model_metrics();
    model_metrics(const model_metrics &) = delete;
    model_metrics &operator=(const model_metrics &) = delete;

    void add(metric which, double value) const noexcept;

private:
    std::array<TRITONSERVER_Metric *, static_cast<std::size_t>(metric::count)> metrics_{};
};

/// The families, which live as long as the backend.
class metric_families {
public:
    metric_families();
    ~metric_families();
    metric_families(const metric_families &) = delete;
    metric_families &operator=(const metric_families &) = delete;

    /// The metrics of a model version: the same while an earlier load of it still lives.
    std::shared_ptr<model_metrics> of(const std::string &model, const std::string &version);

private:
    friend class model_metrics;
    std::array<TRITONSERVER_MetricFamily *, static_cast<std::size_t>(metric::count)> families_{};
    std::mutex mutex_;
    std::map<std::string, std::weak_ptr<model_metrics>> models_;
};

}  // namespace bespoke_triton

#endif
