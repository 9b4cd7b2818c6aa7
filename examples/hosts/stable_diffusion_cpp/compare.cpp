// The samplers of stable-diffusion.cpp, and a theta beside them, on one model behind one denoise callback.
//
//     compare CARD THETA COUNT
//
// CARD is a flow on fm-ot with classes. Prints a row of Markdown for each: evaluations, and rmse against its own Heun with
// 400 steps. Needs the headers of stable-diffusion.cpp alone: its samplers are in them.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "denoiser.hpp"
// After it.
#include "sample_bespoke.hpp"

namespace {

/// The host's model: x = (1 - sigma) data + sigma noise, and denoised = x - sigma (minus the velocity).
class digits {
public:
    digits(const std::string &card, std::int64_t count) : model_(bespoke::model::open(card)), count_(count) {
        const auto info = model_.info();
        shape_.assign(info.shape, info.shape + info.ndim);
        for (std::int64_t i = 0; i < count; i++) condition_.classes.push_back(i % 10);
    }

    sd::Tensor<float> denoised(const sd::Tensor<float> &x, float sigma) {
        evaluations_++;
        std::vector<float> t(static_cast<std::size_t>(count_), 1 - sigma);
        std::vector<float> u(x.values().size());
        std::vector<std::int64_t> shape{count_};
        shape.insert(shape.end(), shape_.begin(), shape_.end());
        model_.velocity({t.data(), {count_}}, bespoke::tensor_view<const float>(x.data(), shape.data(), shape.size()),
                        bespoke::tensor_view<float>(u.data(), shape.data(), shape.size()), condition_);
        for (std::size_t i = 0; i < u.size(); i++) u[i] = x.values()[i] + sigma * u[i];
        return {x.shape(), std::move(u)};
    }

    /// A tensor of theirs: the sizes of a sample from the last, then the batch.
    sd::Tensor<float> noise() const {
        std::int64_t elements = 1;
        std::vector<std::int64_t> sizes(shape_.rbegin(), shape_.rend());
        for (std::int64_t size : sizes) elements *= size;
        sizes.push_back(count_);
        std::vector<float> values(static_cast<std::size_t>(count_ * elements));
        bespoke::noise(0, 0, bespoke::tensor_view<float>(values.data(), {count_, elements}));
        return {sizes, std::move(values)};
    }

    std::int64_t count() const { return count_; }
    int evaluations() { return std::exchange(evaluations_, 0); }

private:
    bespoke::model model_;
    std::int64_t count_;
    std::vector<std::int64_t> shape_;
    bespoke::condition condition_;
    int evaluations_ = 0;
};

std::vector<float> even(int steps) {
    std::vector<float> sigmas;
    for (int i = 0; i <= steps; i++) sigmas.push_back(1 - static_cast<float>(i) / static_cast<float>(steps));
    return sigmas;
}

/// Of each sample, then their mean.
double rmse(const sd::Tensor<float> &a, const sd::Tensor<float> &b, std::int64_t count) {
    const auto elements = a.values().size() / static_cast<std::size_t>(count);
    double sum = 0;
    for (std::size_t row = 0; row < static_cast<std::size_t>(count); row++) {
        double squares = 0;
        for (std::size_t i = row * elements; i < (row + 1) * elements; i++)
            squares += std::pow(a.values()[i] - b.values()[i], 2);
        sum += std::sqrt(squares / static_cast<double>(elements));
    }
    return sum / static_cast<double>(count);
}

void compare(digits &model, const bespoke::theta &theta) {
    const denoise_cb_t denoise = [&](const sd::Tensor<float> &x, float sigma, int) { return model.denoised(x, sigma); };
    const auto theirs = [&](sample_method_t method, int steps) {
        return sample_k_diffusion(method, denoise, model.noise(), even(steps), nullptr, 0, true);
    };
    const auto truth = theirs(HEUN_SAMPLE_METHOD, 400);
    model.evaluations();
    const auto row = [&](const char *name, const sd::Tensor<float> &x) {
        std::printf("| %s | %d | %.4f |\n", name, model.evaluations(), rmse(x, truth, model.count()));
    };
    const int nfe = static_cast<int>(theta.nfe());
    std::printf("| sampler | evaluations | rmse |\n| --- | --- | --- |\n");
    row("euler", theirs(EULER_SAMPLE_METHOD, nfe));
    row("ipndm", theirs(IPNDM_SAMPLE_METHOD, nfe));
    row("ipndm_v", theirs(IPNDM_V_SAMPLE_METHOD, nfe));
    row("res_multistep", theirs(RES_MULTISTEP_SAMPLE_METHOD, nfe));
    // Two evaluations a step, but for the last: one more in all.
    row("heun", theirs(HEUN_SAMPLE_METHOD, nfe / 2 + 1));
    row("dpm2", theirs(DPM2_SAMPLE_METHOD, nfe / 2 + 1));
    row("res_2s", theirs(RES_2S_SAMPLE_METHOD, nfe / 2 + 1));
    bespoke::hosts::denoise_solver solver(theta, "fm-ot", bespoke::hosts::noise_level::flow);
    row("theta", sample_bespoke(denoise, model.noise(), solver));
}

}  // namespace

int main(int count, char *const *arguments) try {
    if (count != 4) {
        std::fprintf(stderr, "usage: compare CARD THETA COUNT\n");
        return 2;
    }
    digits model(arguments[1], std::atoll(arguments[3]));
    compare(model, bespoke::theta::load(arguments[2]));
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
