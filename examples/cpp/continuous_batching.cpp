// An engine's loop: requests of different quality share every evaluation of the model.
//
//     continuous_batching THETA THETA THETA THETA
//
// One request per theta arrives at each evaluation. Its sample joins the batch, and leaves as soon
// as its own theta is through; the others go on. Each result is what the request gets when alone.

#include <cmath>
#include <cstdio>
#include <exception>
#include <stdexcept>

#include "bespoke.hpp"
#include "ring.hpp"

struct request {
    unsigned number;
    const bespoke::theta *theta;
    std::array<float, 2> sample;
};

static void evaluate(bespoke::tensor_view<const float> t, bespoke::tensor_view<const float> x,
                     bespoke::tensor_view<float> u) {
    for (std::size_t i = 0; i < x.batch(); i++) {
        const auto velocity = ring::velocity(t[i], x[2 * i], x[2 * i + 1]);
        u[2 * i] = static_cast<float>(velocity[0]);
        u[2 * i + 1] = static_cast<float>(velocity[1]);
    }
}

int main(int count, char *const *arguments) try {
    if (count < 2) {
        std::fprintf(stderr, "usage: continuous_batching THETA...\n");
        return 2;
    }
    std::vector<bespoke::theta> thetas;
    thetas.reserve(static_cast<std::size_t>(count) - 1);
    for (int i = 1; i < count; i++) thetas.push_back(bespoke::theta::load(arguments[i]));
    const auto noise = ring::noise(thetas.size(), 11);
    std::vector<request> waiting;
    waiting.reserve(thetas.size());
    for (std::size_t i = 0; i < thetas.size(); i++)
        waiting.push_back({static_cast<unsigned>(i), &thetas[i], {noise[2 * i], noise[2 * i + 1]}});

    bespoke::sampler sampler(thetas[0]);
    std::vector<request> active;  // row by row
    std::vector<float> u;
    unsigned evaluations = 0, alone = 0;
    double worst = 0.0;
    std::size_t arrived = 0;
    while (arrived < waiting.size() || !active.empty()) {
        if (arrived < waiting.size()) {
            request next = waiting[arrived++];
            sampler.join(*next.theta, bespoke::tensor_view<float>(next.sample.data(), {1, 2}));
            active.push_back(next);
        }
        const auto asked = sampler.query<float>();
        if (!asked) throw std::logic_error("a sampler with active requests asks for a velocity");
        u.resize(asked->x.size());
        const bespoke::tensor_view<float> velocity(u.data(), {asked->x.extent(0), 2});
        evaluate(asked->t, asked->x, velocity);
        evaluations++;
        sampler.update(velocity);

        for (std::uint32_t row = 0; row < active.size();) {
            const auto progress = sampler.row(row);
            if (progress.evaluations < progress.nfe) {
                row++;
                continue;
            }
            request done = active[row];
            sampler.leave(row, bespoke::tensor_view<float>(done.sample.data(), {1, 2}));
            active[row] = active.back();  // as the sampler's last sample moved
            active.pop_back();
            alone += progress.nfe;

            const std::size_t first = 2 * std::size_t{done.number};
            std::array<float, 2> same{noise[first], noise[first + 1]};
            bespoke::sampler(*done.theta)
                .sample(*done.theta, bespoke::tensor_view<float>(same.data(), {1, 2}), evaluate);
            for (std::size_t i = 0; i < 2; i++) worst = std::fmax(worst, std::fabs(same[i] - done.sample[i]));
            std::printf("request %u  nfe %u  done after evaluation %u  at %.4f %.4f\n", done.number, progress.nfe,
                        evaluations, done.sample[0], done.sample[1]);
        }
    }
    std::printf("%u evaluations of the model instead of %u; largest difference %.3g\n", evaluations, alone, worst);
    return worst == 0.0 ? 0 : 1;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
