#include "metrics.hpp"

namespace bespoke_triton {

namespace {

struct description {
    TRITONSERVER_MetricKind kind;
    const char *name, *help;
};

constexpr description descriptions[] = {
    {TRITONSERVER_METRIC_KIND_COUNTER, "bespoke_network_calls_total",
     "Evaluations of the velocity, each for a whole batch"},
    {TRITONSERVER_METRIC_KIND_COUNTER, "bespoke_network_rows_total", "Samples in all evaluations of the velocity"},
    {TRITONSERVER_METRIC_KIND_COUNTER, "bespoke_network_seconds_total", "Time spent in evaluations of the velocity"},
    {TRITONSERVER_METRIC_KIND_COUNTER, "bespoke_solver_seconds_total", "Time of the batch loop outside of evaluations"},
    {TRITONSERVER_METRIC_KIND_COUNTER, "bespoke_cancelled_total", "Requests that were cancelled before they were done"},
    {TRITONSERVER_METRIC_KIND_GAUGE, "bespoke_active_rows", "Samples that have begun and are not done"},
};
static_assert(sizeof descriptions / sizeof *descriptions == static_cast<std::size_t>(metric::count));

}  // namespace

metric_families::metric_families() {
    for (std::size_t i = 0; i < families_.size(); i++) {
        const description &d = descriptions[i];
        if (TRITONSERVER_Error *error = TRITONSERVER_MetricFamilyNew(&families_[i], d.kind, d.name, d.help)) {
            // A server without metrics: all the rest works.
            TRITONSERVER_ErrorDelete(error);
            families_[i] = nullptr;
        }
    }
}

metric_families::~metric_families() {
    for (TRITONSERVER_MetricFamily *family : families_)
        if (family != nullptr) log_error(TRITONSERVER_MetricFamilyDelete(family), "freeing a metric family");
}

std::shared_ptr<model_metrics> metric_families::of(const std::string &model, const std::string &version) {
    const std::lock_guard lock(mutex_);
    auto &known = models_[model + ':' + version];
    auto metrics = known.lock();
    if (!metrics) known = metrics = std::make_shared<model_metrics>(*this, model, version);
    return metrics;
}

model_metrics::model_metrics(const metric_families &families, const std::string &model, const std::string &version) {
    TRITONSERVER_Parameter *labels[] = {
        TRITONSERVER_ParameterNew("model", TRITONSERVER_PARAMETER_STRING, model.c_str()),
        TRITONSERVER_ParameterNew("version", TRITONSERVER_PARAMETER_STRING, version.c_str())};
    for (std::size_t i = 0; i < metrics_.size(); i++) {
        if (families.families_[i] == nullptr) continue;
        log_error(TRITONSERVER_MetricNew(&metrics_[i], families.families_[i],
                                         const_cast<const TRITONSERVER_Parameter **>(labels), 2),
                  "making a metric");
    }
    for (TRITONSERVER_Parameter *label : labels) TRITONSERVER_ParameterDelete(label);
}

model_metrics::~model_metrics() {
    for (TRITONSERVER_Metric *metric : metrics_)
        if (metric != nullptr) log_error(TRITONSERVER_MetricDelete(metric), "freeing a metric");
}

void model_metrics::add(metric which, double value) const noexcept {
    TRITONSERVER_Metric *metric = metrics_[static_cast<std::size_t>(which)];
    if (metric == nullptr) return;
    log_error(TRITONSERVER_MetricIncrement(metric, value), "counting");
}

}  // namespace bespoke_triton
