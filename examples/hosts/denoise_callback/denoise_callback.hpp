// A theta behind a denoise callback: the way in which samplers in the manner of k-diffusion ask their model.
//
//     denoise(x, sigma, step) -> denoised, the data that x of noise level sigma points to
//
// k-diffusion counts x = data + sigma noise, with sigma from high to low and denoised = x - sigma epsilon; flow models
// x = (1 - sigma) data + sigma noise, with sigma from 1 to 0 and denoised = x - sigma velocity. What the model itself
// predicts is its wrapper's business, in the host.

#ifndef BESPOKE_DENOISE_CALLBACK_HPP
#define BESPOKE_DENOISE_CALLBACK_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bespoke.hpp"

namespace bespoke::hosts {

/// What a host means by sigma.
enum class noise_level {
    /// x = data + sigma noise.
    exploding,
    /// x = (1 - sigma) data + sigma noise.
    flow,
};

/// Solves with one theta. The scratch is one batch's: one thread at a time.
class denoise_solver {
public:
    /// `theta` was made for a model of `scheduler`, written as bespoke_theta_solver takes it: a card's `scheduler`,
    /// with its `time.end` as `end`.
    denoise_solver(const theta &theta, const std::string &scheduler, noise_level level)
        : sampler_(theta.for_output(scheduler, "x1")) {
        for (std::uint32_t k = 0; k < theta.nfe(); k++) {
            const bespoke_stage stage = theta.stage(k);
            // No x is of a level without data, and denoised says nothing where there is no noise: what is asked for
            // stops a little short of either, as the library does.
            const bool early = level == noise_level::exploding && stage.t < 0.5;
            add(output_velocity(scheduler, early ? "epsilon" : "x1", stage.t), level);
            begins_.push_back(stage.self_contained != 0);
        }
        add(output_velocity(scheduler, "velocity", 1), level);
    }

    /// The noise levels of the evaluations in their order, and the one that x is left at: 0 where the model's time
    /// ends at the data. A solver of two evaluations a step need not go down from each to the next.
    const std::vector<float> &sigmas() const noexcept { return sigmas_; }

    std::uint32_t nfe() const noexcept { return static_cast<std::uint32_t>(points_.size() - 1); }

    /// The first evaluation of a noise level of at most `sigma` at which a solve may begin, as one of an image that has
    /// been noised to `sigmas()[first]` does.
    std::uint32_t first_below(float sigma) const {
        for (std::uint32_t k = 0; k < nfe(); k++)
            if (begins_[k] && sigmas_[k] <= sigma) return k;
        throw std::invalid_argument("no solve begins at a noise level of " + std::to_string(sigma) + " or less");
    }

    /// Takes `x`, contiguous, `[batch, ...]`, from the noise level sigmas()[first] down to the last, in place.
    ///
    /// `denoise` is called with (tensor_view<const T> x, float sigma, int step, tensor_view<T> denoised) and writes
    /// denoised; step counts the evaluations from 1 to nfe(). What it throws comes out, with x as it was.
    template <class T, class Denoise>
    void sample(tensor_view<T> x, Denoise &&denoise, std::uint32_t first = 0) {
        if (first >= nfe() || !begins_[first]) throw std::invalid_argument("no solve begins at this evaluation");
        std::vector<std::int64_t> shape(x.rank());
        for (std::size_t i = 0; i < shape.size(); i++) shape[i] = x.extent(i);
        std::vector<T> state(x.size()), scaled(x.size()), denoised(x.size());
        const auto view = [&](std::vector<T> &of) { return tensor_view<T>(of.data(), shape.data(), shape.size()); };
        const auto times = [&](const T *from, double factor, std::vector<T> &to) {
            std::transform(from, from + to.size(), to.begin(), [&](T v) { return static_cast<T>(factor * v); });
        };
        times(x.data(), points_[first].scale, state);
        for (std::uint32_t k = first; k < nfe(); k++) {
            times(state.data(), 1 / points_[k].scale, scaled);
            denoise(tensor_view<const T>(view(scaled)), sigmas_[k], static_cast<int>(k) + 1, view(denoised));
            sampler_.advance(k, view(state), view(denoised), view(state));
        }
        times(state.data(), 1 / points_.back().scale, scaled);
        std::copy(scaled.begin(), scaled.end(), x.data());
    }

private:
    /// A state of the model's path is `scale` times the host's of noise level `sigma`.
    struct point {
        double scale, sigma;
    };

    void add(const bespoke_velocity_scalars &at, noise_level level) {
        const double scale = level == noise_level::exploding ? at.alpha : at.alpha + at.sigma;
        points_.push_back({scale, at.sigma / scale});
        sigmas_.push_back(static_cast<float>(at.sigma / scale));
    }

    sampler sampler_;
    std::vector<point> points_;
    std::vector<float> sigmas_;
    std::vector<bool> begins_;
};

}  // namespace bespoke::hosts

#endif
