#include "engine.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bespoke_triton {

namespace {

std::unique_ptr<bespoke::sampler> sampler_for(catalogue &solvers) {
    // Every sample joins with a theta of its own; a sampler is made for some theta.
    return std::make_unique<bespoke::sampler>(solvers.find(std::nullopt, std::nullopt)->theta);
}

}  // namespace

engine::engine(model &model, TRITONBACKEND_ModelInstance *instance, std::shared_ptr<const velocity> velocity)
    : model_(model), instance_(instance), velocity_(std::move(velocity)), sampler_(sampler_for(model.solvers())) {
    thread_ = std::thread([this] { work(); });
}

engine::~engine() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    arrived_.notify_one();
    thread_.join();
}

void engine::run(std::vector<std::unique_ptr<request>> requests) {
    if (requests.empty()) return;
    std::unique_lock lock(mutex_);
    for (auto &request : requests) {
        samples_ += request->samples.size();
        waiting_.push_back(std::move(request));
    }
    arrived_.notify_one();
    const std::size_t room = model_.settings().continuous ? model_.settings().max_rows : 0;
    left_.wait(lock, [&] { return samples_ <= room; });
}

void engine::work() {
    while (wait()) step();
}

/// False when there is nothing left to do, for good.
bool engine::wait() {
    std::unique_lock lock(mutex_);
    if (rows_.empty()) arrived_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    return !rows_.empty() || !waiting_.empty();
}

void engine::step() {
    const std::uint64_t start = now_ns();
    const std::size_t before = rows_.size();
    try {
        drop_cancelled();
        admit();
        if (!rows_.empty()) {
            evaluate(start);
            collect();
        }
    } catch (...) {
        fail_all();
    }
    model_.metrics().add(metric::active_rows, static_cast<double>(rows_.size()) - static_cast<double>(before));
}

bespoke::tensor_view<float> engine::view(float *data, std::size_t rows) const {
    std::vector<std::int64_t> shape = model_.shape();
    shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
    return bespoke::tensor_view<float>(data, shape.data(), shape.size());
}

void engine::admit() {
    if (!model_.settings().continuous && !rows_.empty()) return;
    while (rows_.size() < model_.settings().max_rows) {
        std::shared_ptr<request> next;
        {
            const std::lock_guard lock(mutex_);
            if (waiting_.empty()) return;
            next = waiting_.front();
        }
        try {
            if (next->cancelled()) throw failure(TRITONSERVER_ERROR_CANCELLED, "the request was cancelled");
            join(next, std::min(model_.settings().max_rows - rows_.size(), next->samples.size() - next->joined));
        } catch (...) {
            fail(next, current_error());
            continue;
        }
        if (next->joined < next->samples.size()) return;
        const std::lock_guard lock(mutex_);
        waiting_.pop_front();
    }
}

void engine::gone(std::size_t samples) {
    const std::lock_guard lock(mutex_);
    samples_ -= samples;
    left_.notify_one();
}

/// Takes the next `count` samples of a request into the batch.
void engine::join(const std::shared_ptr<request> &request, std::size_t count) {
    const std::size_t end = request->joined + count;
    if (request->joined == 0) active_.push_back(request);
    while (request->joined < end) {
        const std::size_t first = request->joined;
        const solver *by = request->samples[first].by.get();
        std::size_t last = first + 1;
        while (last < end && request->samples[last].by.get() == by) last++;
        sampler_->join(by->theta, view(request->states.data() + first * model_.elements(), last - first));
        for (std::size_t i = first; i < last; i++) rows_.push_back({request, i, 0, false});
        request->joined = last;
    }
}

void engine::drop_cancelled() {
    const auto present = active_;
    for (const auto &request : present)
        if (request->cancelled())
            fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_CANCELLED, "the request was cancelled"));
}

/// Classes and guidance of the batch, row by row.
void engine::condition() {
    classes_.clear();
    guidance_scale_.clear();
    bool guided = false;
    for (const row &row : rows_) {
        const sample &sample = row.of->samples[row.index];
        if (model_.classes() > 0) classes_.push_back(sample.of_class);
        guidance_scale_.push_back(sample.guidance_scale);
        guided = guided || sample.guidance_scale != 1.0;
    }
    if (!guided) guidance_scale_.clear();
}

void engine::evaluate(std::uint64_t step_start) {
    condition();
    u_.resize(rows_.size() * model_.elements());
    const auto u = view(u_.data(), rows_.size());
    const auto at = sampler_->query<float>();
    if (!at) throw failure(TRITONSERVER_ERROR_INTERNAL, "the batch has samples that are done");

    network_start_ns_ = now_ns();
    const auto &metrics = model_.metrics();
    metrics.add(metric::network_calls, 1);
    metrics.add(metric::network_rows, static_cast<double>(rows_.size()));
    velocity_->evaluate(*at, u, classes_, guidance_scale_);
    network_end_ns_ = now_ns();
    metrics.add(metric::network_seconds, static_cast<double>(network_end_ns_ - network_start_ns_) * 1e-9);

    const std::uint64_t before_ns = network_start_ns_ - step_start;
    metrics.add(metric::solver_seconds, static_cast<double>(before_ns) * 1e-9);
    for (const auto &request : active_) {
        if (request->calls++ == 0) request->first_call_ns = network_start_ns_;
        request->last_call_ns = network_end_ns_;
        request->network_ns += network_end_ns_ - network_start_ns_;
        request->solver_ns += before_ns;
    }
    preview(*at, u);
    take_in(u);
}

/// Sends x(1) as it is predicted here to the requests that want it.
void engine::preview(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u) {
    std::vector<std::shared_ptr<request>> due;
    for (const auto &request : active_) {
        const bool wants = request->preview_every != 0 && request->calls % request->preview_every == 0;
        if (wants && request->joined == request->samples.size()) due.push_back(request);
    }
    if (due.empty()) return;
    predictions_.resize(u.size());
    velocity_->model().prediction(at.t, at.x, u, view(predictions_.data(), rows_.size()));
    const std::size_t elements = model_.elements();
    for (const auto &request : due) {
        bool last = true;
        // Samples that are done already stand in the states.
        previews_ = request->states;
        for (std::size_t i = 0; i < rows_.size(); i++) {
            if (rows_[i].of != request) continue;
            std::memcpy(previews_.data() + rows_[i].index * elements, predictions_.data() + i * elements,
                        elements * sizeof(float));
            last = last && rows_[i].evaluations + 1 == request->samples[rows_[i].index].by->nfe;
        }
        // After the last evaluation comes the sample itself.
        if (!last) request->send_preview(previews_.data());
    }
}

void engine::take_in(bespoke::tensor_view<float> u) {
    bool all_finite = true;
    try {
        sampler_->update(u);
    } catch (const bespoke::error &error) {
        if (error.status() != BESPOKE_ERROR_NON_FINITE) throw;
        all_finite = false;
    }
    for (std::size_t i = 0; i < rows_.size(); i++) {
        rows_[i].failed = !all_finite && sampler_->row(static_cast<std::uint32_t>(i)).failed != 0;
        if (!rows_[i].failed) rows_[i].evaluations++;
    }
}

/// Lets samples go that are done or failed, and answers requests that are.
void engine::collect() {
    const std::uint64_t evaluated = rows_.size();
    std::vector<std::shared_ptr<request>> failed, finished;
    for (const row &row : rows_)
        if (row.failed && std::find(failed.begin(), failed.end(), row.of) == failed.end()) failed.push_back(row.of);
    for (const auto &request : failed) {
        const std::string what =
            "the velocity of evaluation " + std::to_string(request->calls - 1) + " holds a NaN or an infinity";
        fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, what.c_str()));
    }
    for (std::size_t i = rows_.size(); i-- > 0;) {
        const row row = rows_[i];
        if (row.evaluations < row.of->samples[row.index].by->nfe) continue;
        leave(i, row.of->states.data() + row.index * model_.elements());
        if (++row.of->done == row.of->samples.size()) finished.push_back(row.of);
    }

    const std::uint64_t end = now_ns();
    for (const auto &request : active_) request->solver_ns += end - network_end_ns_;
    model_.metrics().add(metric::solver_seconds, static_cast<double>(end - network_end_ns_) * 1e-9);
    log_error(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance_, evaluated, network_start_ns_,
                                                               network_start_ns_, network_end_ns_, end),
              "reporting statistics");
    for (const auto &request : finished) {
        active_.erase(std::find(active_.begin(), active_.end(), request));
        responder_.answer(request);
    }
}

void engine::leave(std::size_t row, float *into) {
    const auto number = static_cast<std::uint32_t>(row);
    if (into == nullptr) {
        sampler_->leave(number);
    } else {
        sampler_->leave(number, view(into, 1));
    }
    // As the sampler's last sample moved.
    rows_[row] = rows_.back();
    rows_.pop_back();
    gone(1);
}

void engine::remove(const request &request) {
    for (std::size_t i = rows_.size(); i-- > 0;)
        if (rows_[i].of.get() == &request) leave(i, nullptr);
}

// By value: the caller's own may lie in a list that this empties.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void engine::fail(std::shared_ptr<request> request, TRITONSERVER_Error *error) {
    if (TRITONSERVER_ErrorCode(error) == TRITONSERVER_ERROR_CANCELLED) model_.metrics().add(metric::cancelled, 1);
    remove(*request);
    active_.erase(std::remove(active_.begin(), active_.end(), request), active_.end());
    {
        // Some of its samples may not have joined yet.
        const std::lock_guard lock(mutex_);
        waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), request), waiting_.end());
    }
    gone(request->samples.size() - request->joined);
    request->fail(error);
}

void engine::fail_all() {
    TRITONSERVER_Error *error = current_error();
    // The sampler may be in any state.
    gone(rows_.size());
    rows_.clear();
    sampler_ = sampler_for(model_.solvers());
    const auto present = active_;
    for (const auto &request : present)
        fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error)));
    TRITONSERVER_ErrorDelete(error);
}

}  // namespace bespoke_triton
