// The loop of the engine, and a theta in its place.

#ifndef TTS_SOLVERS_HPP
#define TTS_SOLVERS_HPP

#include <utility>
#include <vector>

#include "bespoke.hpp"
#include "voice.hpp"

/// Takes x of one sample from noise to features.
class euler {
public:
    /// Times `shift` t / (1 + (`shift` - 1) t) for even t: ZipVoice's are those of .5, Matcha's of 1.
    euler(unsigned nfe, float shift) : nfe_(nfe), shift_(shift) {}

    void operator()(flow &flow, std::vector<float> &x) const {
        std::vector<float> u(x.size());
        for (unsigned step = 0; step < nfe_; step++) {
            const float t = time(step), ahead = time(step + 1) - t;
            flow.velocity(&t, x.data(), u.data());
            for (std::size_t i = 0; i < x.size(); i++) x[i] += u[i] * ahead;
        }
    }

private:
    float time(unsigned step) const {
        const float t = static_cast<float>(step) / static_cast<float>(nfe_);
        return shift_ * t / (1 + (shift_ - 1) * t);
    }

    unsigned nfe_;
    float shift_;
};

/// The same by a theta, learned or published.
class learned {
public:
    explicit learned(bespoke::theta theta) : theta_(std::move(theta)), sampler_(theta_) {}

    void operator()(flow &flow, std::vector<float> &x) {
        const auto shape = flow.shape(voice::bands);
        sampler_.sample(theta_, bespoke::tensor_view<float>(x.data(), shape.data(), shape.size()),
                        [&](auto t, auto x, auto u) { flow.velocity(t.data(), x.data(), u.data()); });
    }

private:
    bespoke::theta theta_;
    bespoke::sampler sampler_;
};

#endif
