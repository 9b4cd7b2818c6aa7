// A theta as one more sampling method of stable-diffusion.cpp, beside `sample_euler` and its kin in denoiser.hpp, which
// is to be included before.

#ifndef BESPOKE_SAMPLE_BESPOKE_HPP
#define BESPOKE_SAMPLE_BESPOKE_HPP

#include <algorithm>
#include <vector>

#include "denoise_callback.hpp"

/// Takes `x` from the noise level solver.sigmas()[first] to the last; as its neighbours, nothing where `model` answers
/// nothing.
static sd::Tensor<float> sample_bespoke(const denoise_cb_t &model, sd::Tensor<float> x,
                                        bespoke::hosts::denoise_solver &solver, std::uint32_t first = 0) {
    struct stopped {};
    const auto denoise = [&](auto state, float sigma, int step, auto denoised) {
        const sd::Tensor<float> given(x.shape(), std::vector<float>(state.begin(), state.end()));
        const sd::Tensor<float> answer = model(given, sigma, step);
        if (answer.empty()) throw stopped{};
        std::copy(answer.values().begin(), answer.values().end(), denoised.begin());
    };
    try {
        // One sample, whatever its shape: a tensor of theirs has its batch last.
        solver.sample(bespoke::tensor_view<float>(x.data(), {1, x.numel()}), denoise, first);
    } catch (const stopped &) {
        return {};
    }
    return x;
}

#endif
