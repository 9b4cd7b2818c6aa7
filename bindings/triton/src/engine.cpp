#include "engine.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bespoke_triton {

engine::engine(model &model, TRITONBACKEND_ModelInstance *instance, std::shared_ptr<const velocity> velocity)
    : model_(model), instance_(instance), velocity_(std::move(velocity)) {
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
    const bool idle = rows() == 0;
    std::unique_lock lock(mutex_);
    if (idle) arrived_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    return !idle || !waiting_.empty();
}

std::size_t engine::rows() const noexcept {
    std::size_t rows = 0;
    for (const batch &batch : batches_) rows += batch.rows().size();
    return rows;
}

void engine::step() {
    const std::uint64_t start = now_ns();
    const std::size_t before = rows();
    try {
        drop_cancelled();
        admit();
    } catch (...) {
        for (batch &batch : batches_) fail_all(batch);
    }
    if (!batches_.empty()) {
        // The next turn is another size's.
        batches_.splice(batches_.end(), batches_, batches_.begin());
        batch &batch = batches_.back();
        try {
            evaluate(batch, start);
            collect(batch);
        } catch (...) {
            fail_all(batch);
        }
    }
    // The sampler of samples that all have one size is kept.
    batches_.remove_if([](const batch &batch) { return batch.rows().empty() && !batch.sizes().empty(); });
    model_.metrics().add(metric::active_rows, static_cast<double>(rows()) - static_cast<double>(before));
}

batch *engine::place(const request &request) {
    const settings &settings = model_.settings();
    if (model_.signature().sized()) {
        std::size_t numbers = 0;
        for (const batch &batch : batches_) numbers += batch.rows().size() * batch.numbers();
        if (numbers + request.numbers > settings.max_numbers) return nullptr;
    }
    if (rows() >= settings.max_rows) return nullptr;
    const auto found = std::find_if(batches_.begin(), batches_.end(),
                                    [&](const batch &batch) { return batch.sizes() == request.sizes; });
    if (found != batches_.end()) return &*found;
    return &batches_.emplace_back(model_, request);
}

void engine::admit() {
    if (!model_.settings().continuous && rows() > 0) return;
    for (;;) {
        std::shared_ptr<request> next;
        {
            const std::lock_guard lock(mutex_);
            if (waiting_.empty()) return;
            next = waiting_.front();
        }
        try {
            if (next->cancelled()) throw failure(TRITONSERVER_ERROR_CANCELLED, "the request was cancelled");
            while (next->joined < next->samples.size()) {
                batch *batch = place(*next);
                if (batch == nullptr) return;
                // One by one only where numbers are counted.
                const std::size_t room = model_.signature().sized() ? 1 : model_.settings().max_rows - rows();
                batch->join(next, std::min(room, next->samples.size() - next->joined));
            }
        } catch (...) {
            fail(next, current_error());
            continue;
        }
        const std::lock_guard lock(mutex_);
        waiting_.pop_front();
    }
}

void engine::gone(std::size_t samples) {
    const std::lock_guard lock(mutex_);
    samples_ -= samples;
    left_.notify_one();
}

void engine::drop_cancelled() {
    std::vector<std::shared_ptr<request>> cancelled;
    for (const batch &batch : batches_)
        for (const auto &request : batch.requests())
            if (request->cancelled()) cancelled.push_back(request);
    for (const auto &request : cancelled)
        fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_CANCELLED, "the request was cancelled"));
}

void engine::evaluate(batch &batch, std::uint64_t step_start) {
    const std::size_t rows = batch.rows().size();
    if (rows == 0) return;
    const bespoke::condition &condition = batch.condition();
    u_.resize(rows * batch.elements());
    const auto u = batch.view(u_.data(), rows);
    const auto at = batch.query();

    network_start_ns_ = now_ns();
    const auto &metrics = model_.metrics();
    metrics.add(metric::network_calls, 1);
    metrics.add(metric::network_rows, static_cast<double>(rows));
    velocity_->evaluate(at, u, condition);
    network_end_ns_ = now_ns();
    metrics.add(metric::network_seconds, static_cast<double>(network_end_ns_ - network_start_ns_) * 1e-9);

    const std::uint64_t before_ns = network_start_ns_ - step_start;
    metrics.add(metric::solver_seconds, static_cast<double>(before_ns) * 1e-9);
    for (const auto &request : batch.requests()) {
        if (request->calls++ == 0) request->first_call_ns = network_start_ns_;
        request->last_call_ns = network_end_ns_;
        request->network_ns += network_end_ns_ - network_start_ns_;
        request->solver_ns += before_ns;
    }
    preview(batch, at, u);
    batch.update(u);
}

/// Sends x(1) as it is predicted here to the requests that want it.
void engine::preview(batch &batch, const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u) {
    std::vector<std::shared_ptr<request>> due;
    for (const auto &request : batch.requests()) {
        const bool wants = request->preview_every != 0 && request->calls % request->preview_every == 0;
        if (wants && request->joined == request->samples.size()) due.push_back(request);
    }
    if (due.empty()) return;
    predictions_.resize(u.size());
    const auto &rows = batch.rows();
    velocity_->model().prediction(at.t, at.x, u, batch.view(predictions_.data(), rows.size()));
    const std::size_t elements = batch.elements();
    for (const auto &request : due) {
        bool last = true;
        // Samples that are done already stand in the states.
        previews_ = request->states;
        for (std::size_t i = 0; i < rows.size(); i++) {
            if (rows[i].of != request) continue;
            std::memcpy(previews_.data() + rows[i].index * elements, predictions_.data() + i * elements,
                        elements * sizeof(float));
            last = last && rows[i].evaluations + 1 == rows[i].sample().by->nfe;
        }
        // After the last evaluation comes the sample itself.
        if (!last) request->send_preview(previews_.data());
    }
}

/// Lets samples go that are done or failed, and answers requests that are.
void engine::collect(batch &batch) {
    const std::uint64_t evaluated = batch.rows().size();
    if (evaluated == 0) return;
    std::vector<std::shared_ptr<request>> failed, finished;
    for (const auto &row : batch.rows())
        if (row.failed && std::find(failed.begin(), failed.end(), row.of) == failed.end()) failed.push_back(row.of);
    for (const auto &request : failed) {
        const std::string what =
            "the velocity of evaluation " + std::to_string(request->calls - 1) + " holds a NaN or an infinity";
        fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, what.c_str()));
    }
    const auto shared = batch.requests();
    for (std::size_t i = batch.rows().size(); i-- > 0;) {
        const auto row = batch.rows()[i];
        if (row.evaluations < row.sample().by->nfe) continue;
        batch.leave(i, row.of->states.data() + row.index * batch.elements());
        gone(1);
        if (++row.of->done == row.of->samples.size()) finished.push_back(row.of);
    }

    const std::uint64_t end = now_ns();
    for (const auto &request : shared) request->solver_ns += end - network_end_ns_;
    model_.metrics().add(metric::solver_seconds, static_cast<double>(end - network_end_ns_) * 1e-9);
    log_error(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance_, evaluated, network_start_ns_,
                                                               network_start_ns_, network_end_ns_, end),
              "reporting statistics");
    for (const auto &request : finished) {
        batch.forget(*request);
        responder_.answer(request);
    }
}

// By value: the caller's own may lie in a list that this empties.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void engine::fail(std::shared_ptr<request> request, TRITONSERVER_Error *error) {
    if (TRITONSERVER_ErrorCode(error) == TRITONSERVER_ERROR_CANCELLED) model_.metrics().add(metric::cancelled, 1);
    for (batch &batch : batches_) gone(batch.remove(*request));
    {
        // Some of its samples may not have joined yet.
        const std::lock_guard lock(mutex_);
        waiting_.erase(std::remove(waiting_.begin(), waiting_.end(), request), waiting_.end());
    }
    gone(request->samples.size() - request->joined);
    request->fail(error);
}

void engine::fail_all(batch &batch) {
    TRITONSERVER_Error *error = current_error();
    gone(batch.rows().size());
    for (const auto &request : batch.clear())
        fail(request, TRITONSERVER_ErrorNew(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error)));
    TRITONSERVER_ErrorDelete(error);
}

}  // namespace bespoke_triton
