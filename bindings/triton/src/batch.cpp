#include "batch.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

namespace bespoke_triton {

batch::batch(model &model, const request &like, std::shared_ptr<device> place)
    : model_(model),
      place_(std::move(place)),
      sizes_(like.sizes),
      shape_(like.shape),
      elements_(like.elements),
      numbers_(like.numbers),
      states_(place_) {
    shape_.insert(shape_.begin(), 1);
    if (place_) where_ = place_->where();
}

std::size_t batch::begun() const noexcept {
    std::size_t count = 0;
    for (const member &member : members_) count += member.rows.size();
    return count;
}

bespoke::tensor_view<float> batch::view(float *data, std::size_t rows) const {
    std::vector<std::int64_t> shape = shape_;
    shape.front() = static_cast<std::int64_t>(rows);
    return bespoke::tensor_view<float>(data, shape.data(), shape.size()).on(where_);
}

void batch::add(std::shared_ptr<request> request) { members_.push_back({std::move(request), {}}); }

bool batch::has(const request &request) const noexcept {
    return std::any_of(members_.begin(), members_.end(),
                       [&](const member &member) { return member.of.get() == &request; });
}

void batch::remove(const request &request) {
    const auto same = [&](const member &member) { return member.of.get() == &request; };
    members_.erase(std::remove_if(members_.begin(), members_.end(), same), members_.end());
}

std::vector<std::shared_ptr<request>> batch::cancelled() const {
    std::vector<std::shared_ptr<request>> found;
    for (const member &member : members_)
        if (member.of->cancelled()) found.push_back(member.of);
    return found;
}

std::vector<std::shared_ptr<request>> batch::clear() {
    std::vector<std::shared_ptr<request>> all;
    all.reserve(members_.size());
    for (member &member : members_) all.push_back(std::move(member.of));
    members_.clear();
    return all;
}

void batch::begin(member &member, std::size_t count) const {
    request &request = *member.of;
    while (member.rows.size() < count) {
        const std::size_t index = request.begun;
        const bespoke::theta &theta = request.samples[index].by->theta;
        bespoke_sampler_options options{};
        if (place_) options.device_ops = &place_->gathering();
        member.rows.push_back(std::make_shared<row>(row{member.of, index, bespoke::sampler(theta, options)}));
        request.begun++;
    }
}

std::vector<batch::refusal> batch::choose(const pace &pace) {
    std::vector<std::size_t> wanted;
    wanted.reserve(members_.size());
    for (const member &member : members_) wanted.push_back(member.of->samples.size() - member.of->done);
    const settings &settings = model_.settings();
    std::size_t most = settings.max_rows;
    if (model_.signature().sized())
        most = std::clamp<std::size_t>(settings.max_numbers / numbers_, 1, settings.max_rows);
    const auto given = shares(wanted, most, pace, static_cast<double>(numbers_));

    rows call;
    std::vector<refusal> refused;
    asked_.clear();
    // Who had least has the first turn.
    std::multimap<std::size_t, member> turns;
    for (std::size_t i = 0; i < members_.size(); i++) {
        member &member = members_[i];
        try {
            begin(member, given[i]);
            const auto end = member.rows.begin() + static_cast<std::ptrdiff_t>(given[i]);
            call.insert(call.end(), member.rows.begin(), end);
            if (given[i] > 0) asked_.push_back(member.of);
        } catch (...) {
            refused.push_back({member.of, current_error()});
        }
        turns.emplace(given[i], std::move(member));
    }
    members_.clear();
    for (auto &turn : turns) members_.push_back(std::move(turn.second));
    stacked_ = stacked_ && call == call_;
    call_ = std::move(call);
    return refused;
}

bespoke::evaluation<float> batch::query() {
    times_.resize(call_.size());
    for (std::size_t i = 0; i < call_.size(); i++) {
        const row &row = *call_[i];
        if (row.done()) throw failure(TRITONSERVER_ERROR_INTERNAL, "the batch has samples that are done");
        times_[i] = static_cast<float>(row.sample().by->theta.stage(row.evaluations).t);
    }
    const bespoke::tensor_view<const float> times(times_.data(), {static_cast<std::int64_t>(times_.size())});
    return {times, view(stacked_states(), call_.size())};
}

float *batch::stacked_states() {
    float *first = state(*call_.front());
    bool beside = true;
    for (std::size_t i = 0; i < call_.size(); i++)
        beside = beside && call_[i]->of == call_.front()->of && state(*call_[i]) == first + i * elements_;
    if (beside) return first;
    states_.resize(call_.size() * elements_);
    for (std::size_t i = 0; i < call_.size(); i++) {
        if (!place_) {
            states_.put(i * elements_, state(*call_[i]), elements_);
            continue;
        }
        place_->gather_copy(states_.data() + i * elements_, state(*call_[i]), elements_);
    }
    if (place_) place_->launch();
    return states_.data();
}

const bespoke::condition &batch::condition() {
    if (!stacked_) stack();
    stacked_ = true;
    return condition_;
}

void batch::stack() {
    const signature &signature = model_.signature();
    condition_ = {};
    bool guided = signature.scale_is_input();
    for (const auto &row : call_) {
        const sample &sample = row->sample();
        if (signature.classes() > 0) condition_.classes.push_back(sample.of_class);
        condition_.guidance_scale.push_back(sample.guidance_scale);
        guided = guided || sample.guidance_scale != 1.0;
        for (std::size_t k = 0; k < sample.scales.size(); k++)
            condition_.scales[signature.scales()[k]].push_back(sample.scales[k]);
    }
    if (!guided) condition_.guidance_scale.clear();

    inputs_.resize(signature.inputs().size());
    for (std::size_t k = 0; k < inputs_.size(); k++) {
        std::vector<char> &stack = inputs_[k];
        stack.clear();
        for (const auto &row : call_) {
            const column &column = row->of->columns[k];
            const char *from = column.bytes.data() + row->sample().row * column.row_bytes;
            stack.insert(stack.end(), from, from + column.row_bytes);
        }
        std::vector<std::int64_t> shape = call_.front()->of->columns[k].shape;
        shape.insert(shape.begin(), static_cast<std::int64_t>(call_.size()));
        const DLTensor tensor{stack.data(),
                              {kDLCPU, 0},
                              static_cast<std::int32_t>(shape.size()),
                              signature.inputs()[k].dtype,
                              shape.data(),
                              nullptr,
                              0};
        condition_.inputs.emplace(signature.inputs()[k].name, bespoke::any_view(tensor));
    }
}

void batch::update(bespoke::tensor_view<float> u) {
    for (std::size_t i = 0; i < call_.size(); i++) {
        row &row = *call_[i];
        try {
            const auto x = one(state(row));
            row.sampler.advance(row.evaluations, x, one(u.data() + i * elements_), x);
            row.evaluations++;
        } catch (const bespoke::error &error) {
            if (error.status() != BESPOKE_ERROR_NON_FINITE) throw;
            row.failed = true;
        }
    }
    if (place_) place_->launch();
}

std::vector<std::shared_ptr<request>> batch::finish() {
    for (member &member : members_) {
        request &request = *member.of;
        const auto done = [&](const std::shared_ptr<row> &row) {
            if (!row->done()) return false;
            request.done++;
            return true;
        };
        member.rows.erase(std::remove_if(member.rows.begin(), member.rows.end(), done), member.rows.end());
    }
    std::vector<std::shared_ptr<request>> finished;
    const auto last = [&](const member &member) { return member.of->done == member.of->samples.size(); };
    for (const member &member : members_)
        if (last(member)) finished.push_back(member.of);
    members_.erase(std::remove_if(members_.begin(), members_.end(), last), members_.end());
    return finished;
}

}  // namespace bespoke_triton
