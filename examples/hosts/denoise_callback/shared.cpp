// denoise_callback.hpp as functions that Python's ctypes can call, for a comparison with k-diffusion's own samplers.

#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include "denoise_callback.hpp"

using bespoke::hosts::denoise_solver;
using bespoke::hosts::noise_level;

namespace {

// Writes denoised; 0, or what stops the solve.
using denoise_fn = std::int32_t (*)(const float *x, float sigma, std::int32_t step, float *denoised);

thread_local std::string message;

template <class Work>
auto guarded(Work &&work) noexcept -> decltype(work()) {
    try {
        return work();
    } catch (const std::exception &failure) {
        message = failure.what();
        return {};
    }
}

}  // namespace

extern "C" {

const char *denoise_message() { return message.c_str(); }

// A theta's file, or where `nfe` is not 0 the published solver of that name; NULL where that fails.
denoise_solver *denoise_new(const char *solver, std::uint32_t nfe, const char *scheduler, bool flow) {
    return guarded([&] {
        const auto theta = nfe == 0 ? bespoke::theta::load(solver) : bespoke::theta::solver(solver, nfe, scheduler);
        const noise_level level = flow ? noise_level::flow : noise_level::exploding;
        return std::make_unique<denoise_solver>(theta, scheduler, level).release();
    });
}

std::uint32_t denoise_nfe(const denoise_solver *solver) { return solver->nfe(); }

// nfe + 1 numbers.
const float *denoise_sigmas(const denoise_solver *solver) { return solver->sigmas().data(); }

// The first evaluation at or below a noise level at which a solve may begin; nfe where there is none.
std::uint32_t denoise_first_below(const denoise_solver *solver, float sigma) {
    try {
        return solver->first_below(sigma);
    } catch (const std::exception &) {
        return solver->nfe();
    }
}

// Whether `x`, [batch, elements], was taken down from evaluation `first`.
bool denoise_sample(denoise_solver *solver, float *x, std::int64_t batch, std::int64_t elements, std::uint32_t first,
                    denoise_fn denoise) {
    return guarded([&] {
        solver->sample(
            bespoke::tensor_view<float>(x, {batch, elements}),
            [&](auto state, float sigma, int step, auto denoised) {
                if (denoise(state.data(), sigma, step, denoised.data()) != 0)
                    throw std::runtime_error("the callback stopped the solve");
            },
            first);
        return true;
    });
}

void denoise_free(denoise_solver *solver) { delete solver; }
}
