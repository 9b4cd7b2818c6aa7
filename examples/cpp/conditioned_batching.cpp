// An engine's loop with conditions: requests with texts of their own lengths and guidance scales of their own share the
// sampler, and those of a length share each evaluation of the model.
//
//     conditioned_batching CARD THETA... < REQUESTS
//
// A request is its number of tokens, its guidance scale, the tokens' numbers and the noise's; it uses the thetas in
// turn. One arrives at each evaluation. What a row is conditioned on travels with it, when it joins, when another
// leaves and the last row takes its place. Where samples are of several sizes, too, keep a sampler for each. Samples
// are written in the order of the requests, a line each.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bespoke.hpp"

namespace {

struct request {
    std::size_t number;
    const bespoke::theta *theta;
    std::int64_t tokens;
    double guidance_scale;
    std::vector<float> text, sample;
};

// The model's one named input, and what its shapes say.
struct signature {
    std::string input;
    std::vector<std::int64_t> sample;  // with room for the batch in front
    std::int64_t width = 0, elements = 1;

    explicit signature(const bespoke_model_properties &model) : sample{0} {
        if (model.input_count != 1 || model.inputs[0].ndim != 2 || model.inputs[0].shape[1] < 1)
            throw std::invalid_argument("expected a model with one input, [tokens, numbers of a token]");
        input = model.inputs[0].name;
        width = model.inputs[0].shape[1];
        for (std::uint32_t i = 0; i < model.ndim; i++) {
            if (model.shape[i] < 1) throw std::invalid_argument("expected a model of one sample size");
            sample.push_back(model.shape[i]);
            elements *= model.shape[i];
        }
    }

    // A view of `rows` samples.
    template <class T>
    bespoke::tensor_view<T> samples(T *data, std::size_t rows) const {
        std::vector<std::int64_t> shape = sample;
        shape[0] = static_cast<std::int64_t>(rows);
        return {data, shape.data(), shape.size()};
    }
};

std::vector<float> numbers(std::int64_t count) {
    std::vector<float> read(static_cast<std::size_t>(count));
    for (float &number : read)
        if (!(std::cin >> number)) throw std::invalid_argument("a request ends early");
    return read;
}

std::vector<request> read_requests(const signature &of, const std::vector<bespoke::theta> &thetas) {
    constexpr std::int64_t most = 1048576;
    std::vector<request> all;
    std::int64_t tokens = 0;
    double scale = 1.0;
    while (std::cin >> tokens >> scale) {
        if (tokens < 1 || tokens > most / of.width) throw std::invalid_argument("tokens are out of range");
        request next{all.size(), &thetas[all.size() % thetas.size()], tokens, scale, {}, {}};
        next.text = numbers(tokens * of.width);
        next.sample = numbers(of.elements);
        all.push_back(std::move(next));
    }
    return all;
}

// One call of the model for the rows of one length of text; `u` is of all rows.
void evaluate(const bespoke::model &model, const signature &of, const std::vector<request> &active,
              const std::vector<std::size_t> &rows, const bespoke::evaluation<float> &asked, std::vector<float> &u) {
    const auto elements = static_cast<std::size_t>(of.elements);
    std::vector<float> times, states, text, velocity(rows.size() * elements);
    bespoke::condition condition;
    for (const std::size_t row : rows) {
        times.push_back(asked.t[row]);
        const float *state = asked.x.data() + row * elements;
        states.insert(states.end(), state, state + elements);
        text.insert(text.end(), active[row].text.begin(), active[row].text.end());
        condition.guidance_scale.push_back(active[row].guidance_scale);
    }
    const auto batch = static_cast<std::int64_t>(rows.size());
    const bespoke::tensor_view<const float> tokens(text.data(), {batch, active[rows[0]].tokens, of.width});
    condition.inputs.emplace(of.input, tokens);
    model.velocity(bespoke::tensor_view<const float>(times.data(), {batch}),
                   of.samples<const float>(states.data(), rows.size()), of.samples(velocity.data(), rows.size()),
                   condition);
    for (std::size_t i = 0; i < rows.size(); i++)
        std::copy_n(velocity.data() + i * elements, elements, u.data() + rows[i] * elements);
}

}  // namespace

int main(int count, char *const *arguments) try {
    if (count < 3) {
        std::fprintf(stderr, "usage: conditioned_batching CARD THETA... < REQUESTS\n");
        return 2;
    }
    const auto model = bespoke::model::open(arguments[1]);
    const signature of(model.info());
    std::vector<bespoke::theta> thetas;
    thetas.reserve(static_cast<std::size_t>(count) - 2);
    for (int i = 2; i < count; i++) thetas.push_back(bespoke::theta::load(arguments[i]));
    std::vector<request> waiting = read_requests(of, thetas);
    std::vector<std::vector<float>> samples(waiting.size());

    bespoke::sampler sampler(thetas[0]);
    std::vector<request> active;  // row by row
    std::vector<float> u;
    std::size_t arrived = 0;
    unsigned calls = 0, alone = 0;
    while (arrived < waiting.size() || !active.empty()) {
        if (arrived < waiting.size()) {
            active.push_back(std::move(waiting[arrived++]));
            request &next = active.back();
            sampler.join(*next.theta, of.samples(next.sample.data(), 1));
        }
        const auto asked = sampler.query<float>();
        if (!asked) throw std::logic_error("a sampler with active requests asks for a velocity");
        std::map<std::int64_t, std::vector<std::size_t>> lengths;
        for (std::size_t row = 0; row < active.size(); row++) lengths[active[row].tokens].push_back(row);
        u.resize(asked->x.size());
        for (const auto &[length, rows] : lengths) evaluate(model, of, active, rows, *asked, u);
        calls += static_cast<unsigned>(lengths.size());
        sampler.update(of.samples(u.data(), active.size()));

        for (std::uint32_t row = 0; row < active.size();) {
            const auto progress = sampler.row(row);
            if (progress.evaluations < progress.nfe) {
                row++;
                continue;
            }
            request &done = active[row];
            sampler.leave(row, of.samples(done.sample.data(), 1));
            samples[done.number] = std::move(done.sample);
            alone += progress.nfe;
            if (row + 1 < active.size()) active[row] = std::move(active.back());  // as the sampler's last sample moved
            active.pop_back();
        }
    }
    for (const auto &sample : samples) {
        for (std::size_t i = 0; i < sample.size(); i++) std::printf(i ? " %.9g" : "%.9g", sample[i]);
        std::printf("\n");
    }
    std::fprintf(stderr, "%u calls of the model instead of %u\n", calls, alone);
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
