// A small sampler before and after: its Euler loop, and a theta in its place.
//
//     replace_euler THETA

#include <cstdio>
#include <exception>

#include "bespoke.hpp"
#include "ring.hpp"

// The model of this program: velocities of points, each at a time of its own.
static void evaluate(const float *t, const float *x, float *u, std::size_t points) {
    for (std::size_t i = 0; i < points; i++) {
        const auto velocity = ring::velocity(t[i], x[2 * i], x[2 * i + 1]);
        u[2 * i] = static_cast<float>(velocity[0]);
        u[2 * i + 1] = static_cast<float>(velocity[1]);
    }
}

// Before: `nfe` Euler steps.
static void sample_before(std::vector<float> &x, unsigned nfe) {
    const std::size_t points = x.size() / 2;
    std::vector<float> t(points), u(x.size());
    for (unsigned step = 0; step < nfe; step++) {
        std::fill(t.begin(), t.end(), static_cast<float>(step) / static_cast<float>(nfe));
        evaluate(t.data(), x.data(), u.data(), points);
        for (std::size_t i = 0; i < x.size(); i++) x[i] += u[i] / static_cast<float>(nfe);
    }
}

// After: the theta says at which times and how far.
static void sample_after(std::vector<float> &x, const bespoke::theta &theta, bespoke::sampler &sampler) {
    const bespoke::tensor_view<float> batch(x.data(), {static_cast<std::int64_t>(x.size() / 2), 2});
    sampler.sample(theta, batch, [](auto t, auto x, auto u) { evaluate(t.data(), x.data(), u.data(), x.batch()); });
}

int main(int count, char *const *arguments) try {
    if (count != 2) {
        std::fprintf(stderr, "usage: replace_euler THETA\n");
        return 2;
    }
    const auto theta = bespoke::theta::load(arguments[1]);
    bespoke::sampler sampler(theta);
    const auto x0 = ring::noise(1000, 7);
    const auto truth = ring::exact(x0);
    auto before = x0, after = x0;
    sample_before(before, theta.nfe());
    sample_after(after, theta, sampler);
    std::printf("euler  nfe %u  rmse %.5f\n", theta.nfe(), ring::rmse(before, truth));
    std::printf("theta  nfe %u  rmse %.5f\n", theta.nfe(), ring::rmse(after, truth));
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
