// A velocity field to sample from: eight Gaussian modes on a circle, FM-OT (x_t = t x1 + (1 - t) x0).

#ifndef RING_HPP
#define RING_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace ring {

constexpr int modes = 8;
constexpr double radius = 2.0, deviation = 0.15, two_pi = 6.283185307179586;

// u_t(x) of one point.
inline std::array<double, 2> velocity(double t, double x, double y) {
    const double sigma = 1.0 - t, variance = t * t * deviation * deviation + sigma * sigma;
    std::array<double, modes> logit{};
    for (int m = 0; m < modes; m++) {
        const double dx = x - t * radius * std::cos(two_pi * m / modes),
                     dy = y - t * radius * std::sin(two_pi * m / modes);
        logit[m] = -(dx * dx + dy * dy) / (2.0 * variance);
    }
    const double highest = *std::max_element(logit.begin(), logit.end());
    double total = 0.0, mean_x = 0.0, mean_y = 0.0;
    for (int m = 0; m < modes; m++) {
        const double weight = std::exp(logit[m] - highest);
        total += weight;
        mean_x += weight * radius * std::cos(two_pi * m / modes);
        mean_y += weight * radius * std::sin(two_pi * m / modes);
    }
    const double c = (t * deviation * deviation - sigma) / variance;
    return {c * x + (1.0 - c * t) * mean_x / total, c * y + (1.0 - c * t) * mean_y / total};
}

// Points of standard normal noise.
inline std::vector<float> noise(std::size_t points, unsigned seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<float> x(2 * points);
    for (float &number : x) number = normal(engine);
    return x;
}

// x(1) of every point by 2,000 midpoint steps, in doubles: far closer than any solver here.
inline std::vector<double> exact(const std::vector<float> &x0) {
    std::vector<double> x(x0.begin(), x0.end());
    constexpr int steps = 2000;
    for (std::size_t i = 0; i < x.size(); i += 2)
        for (int step = 0; step < steps; step++) {
            const double h = 1.0 / steps, t = step * h;
            const auto a = velocity(t, x[i], x[i + 1]);
            const auto u = velocity(t + h / 2, x[i] + h / 2 * a[0], x[i + 1] + h / 2 * a[1]);
            x[i] += h * u[0];
            x[i + 1] += h * u[1];
        }
    return x;
}

inline double rmse(const std::vector<float> &x, const std::vector<double> &truth) {
    double sum = 0.0;
    for (std::size_t i = 0; i < x.size(); i += 2)
        sum += std::sqrt((std::pow(x[i] - truth[i], 2) + std::pow(x[i + 1] - truth[i + 1], 2)) / 2.0);
    return sum / (static_cast<double>(x.size()) / 2.0);
}

}  // namespace ring

#endif
