#include "batch.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace bespoke_triton {

batch::batch(model &model, const request &like)
    : model_(model), sizes_(like.sizes), shape_(like.shape), elements_(like.elements), numbers_(like.numbers) {
    restart();
}

void batch::restart() {
    // Every sample joins with a theta of its own; a sampler is made for some theta.
    sampler_ = std::make_unique<bespoke::sampler>(model_.solvers().find(std::nullopt, std::nullopt)->theta);
}

bespoke::tensor_view<float> batch::view(float *data, std::size_t rows) const {
    std::vector<std::int64_t> shape = shape_;
    shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
    return {data, shape.data(), shape.size()};
}

void batch::join(const std::shared_ptr<request> &request, std::size_t count) {
    const std::size_t end = request->joined + count;
    if (std::find(requests_.begin(), requests_.end(), request) == requests_.end()) requests_.push_back(request);
    stacked_ = false;
    while (request->joined < end) {
        const std::size_t first = request->joined;
        const solver *by = request->samples[first].by.get();
        std::size_t last = first + 1;
        while (last < end && request->samples[last].by.get() == by) last++;
        sampler_->join(by->theta, view(request->states.data() + first * elements_, last - first));
        for (std::size_t i = first; i < last; i++) rows_.push_back({request, i, 0, false});
        request->joined = last;
    }
}

bespoke::evaluation<float> batch::query() {
    const auto at = sampler_->query<float>();
    if (!at) throw failure(TRITONSERVER_ERROR_INTERNAL, "the batch has samples that are done");
    return *at;
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
    for (const row &row : rows_) {
        const sample &sample = row.sample();
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
        for (const row &row : rows_) {
            const column &column = row.of->columns[k];
            const char *from = column.bytes.data() + row.sample().row * column.row_bytes;
            stack.insert(stack.end(), from, from + column.row_bytes);
        }
        std::vector<std::int64_t> shape = rows_.front().of->columns[k].shape;
        shape.insert(shape.begin(), static_cast<std::int64_t>(rows_.size()));
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

void batch::leave(std::size_t row, float *into) {
    const auto number = static_cast<std::uint32_t>(row);
    if (into == nullptr) {
        sampler_->leave(number);
    } else {
        sampler_->leave(number, view(into, 1));
    }
    stacked_ = false;
    // As the sampler's last sample moved.
    rows_[row] = rows_.back();
    rows_.pop_back();
}

void batch::forget(const request &request) {
    const auto same = [&](const auto &other) { return other.get() == &request; };
    requests_.erase(std::remove_if(requests_.begin(), requests_.end(), same), requests_.end());
}

std::size_t batch::remove(const request &request) {
    std::size_t count = 0;
    for (std::size_t i = rows_.size(); i-- > 0;) {
        if (rows_[i].of.get() != &request) continue;
        leave(i, nullptr);
        count++;
    }
    forget(request);
    return count;
}

std::vector<std::shared_ptr<request>> batch::clear() {
    rows_.clear();
    stacked_ = false;
    restart();
    return std::exchange(requests_, {});
}

}  // namespace bespoke_triton
