#include "engine.hpp"

#include <algorithm>
#include <utility>

namespace bespoke_triton {

engine::engine(model &model, TRITONBACKEND_ModelInstance *instance, std::shared_ptr<const velocity> velocity,
               std::shared_ptr<device> place)
    : model_(model),
      instance_(instance),
      velocity_(std::move(velocity)),
      place_(std::move(place)),
      u_(place_),
      predictions_(place_),
      previews_(place_) {
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
    requests_ += requests.size();
    for (auto &request : requests) waiting_.push_back(std::move(request));
    arrived_.notify_one();
    const std::size_t room = model_.settings().continuous ? model_.settings().max_rows : 0;
    left_.wait(lock, [&] { return requests_ <= room; });
}

void engine::work() {
    while (wait()) step();
}

/// False when there is nothing left to do, for good.
bool engine::wait() {
    const bool idle = turns_.empty();
    std::unique_lock lock(mutex_);
    if (idle) arrived_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    return !idle || !waiting_.empty();
}

std::size_t engine::begun() const noexcept {
    std::size_t count = 0;
    for (const turn &turn : turns_) count += turn.batch.begun();
    return count;
}

void engine::step() {
    const std::uint64_t start = now_ns();
    const std::size_t before = begun();
    take_in();
    drop_cancelled();
    if (!turns_.empty()) {
        turn &turn = next();
        try {
            evaluate(turn, start);
            collect(turn.batch);
        } catch (...) {
            // What it queued no longer has its memory then.
            if (place_) place_->forget();
            fail_all(turn.batch);
        }
    }
    turns_.remove_if([](const turn &turn) { return turn.batch.requests() == 0; });
    model_.metrics().add(metric::active_rows, static_cast<double>(begun()) - static_cast<double>(before));
}

void engine::take_in() {
    std::deque<std::shared_ptr<request>> come;
    {
        const std::lock_guard lock(mutex_);
        come.swap(waiting_);
    }
    for (auto &request : come) {
        auto found = std::find_if(turns_.begin(), turns_.end(),
                                  [&](const turn &turn) { return turn.batch.sizes() == request->sizes; });
        if (found == turns_.end()) {
            // It has nothing in store for the time before it came.
            const double had = turns_.empty() ? 0.0 : next().had;
            found = turns_.insert(turns_.end(), {batch(model_, *request, place_), had});
        }
        found->batch.add(std::move(request));
    }
}

engine::turn &engine::next() {
    return *std::min_element(turns_.begin(), turns_.end(), [](const turn &a, const turn &b) { return a.had < b.had; });
}

void engine::gone(std::size_t requests) {
    const std::lock_guard lock(mutex_);
    requests_ -= requests;
    left_.notify_one();
}

void engine::drop_cancelled() {
    for (turn &turn : turns_)
        for (const auto &request : turn.batch.cancelled())
            fail(turn.batch, request, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_CANCELLED, "the request was cancelled"));
}

void engine::evaluate(turn &turn, std::uint64_t step_start) {
    batch &batch = turn.batch;
    for (const auto &refused : batch.choose(pace_)) fail(batch, refused.of, refused.error);
    const std::size_t rows = batch.call().size();
    if (rows == 0) return;
    const bespoke::condition &condition = batch.condition();
    u_.resize(rows * batch.elements());
    const auto u = batch.view(u_.data(), rows);
    const auto at = batch.query();

    network_start_ns_ = now_ns();
    const auto &metrics = model_.metrics();
    metrics.add(metric::network_calls, 1);
    metrics.add(metric::network_rows, static_cast<double>(rows));
    velocity_->evaluate(at, u, condition, place_.get());
    network_end_ns_ = now_ns();
    const double seconds = static_cast<double>(network_end_ns_ - network_start_ns_) * 1e-9;
    metrics.add(metric::network_seconds, seconds);
    pace_.learn(static_cast<double>(rows * batch.numbers()), seconds);
    turn.had += 1.0 / static_cast<double>(batch.requests());

    const std::uint64_t before_ns = network_start_ns_ - step_start;
    metrics.add(metric::solver_seconds, static_cast<double>(before_ns) * 1e-9);
    for (const auto &request : batch.asked()) {
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
    const auto &call = batch.call();
    const auto samples_of = [&](const std::shared_ptr<request> &request) {
        return static_cast<std::size_t>(
            std::count_if(call.begin(), call.end(), [&](const auto &row) { return row->of == request; }));
    };
    std::vector<std::shared_ptr<request>> due;
    for (const auto &request : batch.asked()) {
        const bool wants = request->preview_every != 0 && request->calls % request->preview_every == 0;
        // With all of its samples in this call, but for those that are done.
        if (wants && samples_of(request) == request->samples.size() - request->done) due.push_back(request);
    }
    if (due.empty()) return;
    predictions_.resize(u.size());
    velocity_->predict(at, u, batch.view(predictions_.data(), call.size()), place_.get());
    const std::size_t elements = batch.elements();
    for (const auto &request : due) {
        bool last = true;
        // Samples that are done already stand in the states.
        previews_.resize(request->states.size());
        previews_.put(0, request->states.data(), request->states.size());
        for (std::size_t i = 0; i < call.size(); i++) {
            const auto &row = *call[i];
            if (row.of != request) continue;
            previews_.put(row.index * elements, predictions_.data() + i * elements, elements);
            last = last && row.evaluations + 1 == row.sample().by->nfe;
        }
        // After the last evaluation comes the sample itself.
        if (!last) request->send_preview(previews_.data());
    }
}

/// Answers requests whose samples are done, or of which one failed.
void engine::collect(batch &batch) {
    const std::size_t evaluated = batch.call().size();
    if (evaluated == 0) return;
    const auto asked = batch.asked();
    for (const auto &row : batch.call()) {
        // Of several samples of a request that failed, one is enough.
        if (!row->failed || !batch.has(*row->of)) continue;
        const std::string what =
            "the velocity of evaluation " + std::to_string(row->of->calls - 1) + " holds a NaN or an infinity";
        fail(batch, row->of, TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, what.c_str()));
    }
    const auto finished = batch.finish();

    const std::uint64_t end = now_ns();
    for (const auto &request : asked) request->solver_ns += end - network_end_ns_;
    model_.metrics().add(metric::solver_seconds, static_cast<double>(end - network_end_ns_) * 1e-9);
    log_error(TRITONBACKEND_ModelInstanceReportBatchStatistics(instance_, evaluated, network_start_ns_,
                                                               network_start_ns_, network_end_ns_, end),
              "reporting statistics");
    for (const auto &request : finished) responder_.answer(request);
    gone(finished.size());
}

void engine::fail(batch &batch, const std::shared_ptr<request> &request, TRITONSERVER_Error *error) {
    if (TRITONSERVER_ErrorCode(error) == TRITONSERVER_ERROR_CANCELLED) model_.metrics().add(metric::cancelled, 1);
    batch.remove(*request);
    request->fail(error);
    gone(1);
}

void engine::fail_all(batch &batch) {
    TRITONSERVER_Error *error = current_error();
    const auto all = batch.clear();
    for (const auto &request : all)
        request->fail(TRITONSERVER_ErrorNew(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error)));
    gone(all.size());
    TRITONSERVER_ErrorDelete(error);
}

}  // namespace bespoke_triton
