// Chunks of actions from a flow-matching policy inside a control loop: one evaluation of the network a control step.

#ifndef ROBOT_CHUNK_HPP
#define ROBOT_CHUNK_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bespoke.hpp"

namespace robot {

/// Solves one chunk after another. All memory is there when it has been made: `begin` and `advance` allocate nothing and
/// wait for nobody, and what they take beside the network is a few additions a number. One thread at a time.
class chunk_solver {
public:
    /// Of `horizon` actions of `width` numbers each, by `theta`, which may go.
    chunk_solver(const bespoke::theta &theta, std::int64_t horizon, std::int64_t width)
        : sampler_(theta),
          horizon_(horizon),
          width_(width),
          velocity_(static_cast<std::size_t>(horizon * width)),
          actions_(velocity_.size()) {
        // A whole chunk, so that whatever is made once has been made.
        begin(actions_.data());
        while (!advance([](auto, auto, auto u) { std::fill(u.begin(), u.end(), 0.0F); })) {}
    }

    std::size_t size() const noexcept { return velocity_.size(); }

    /// Begins a chunk from standard normal `noise`.
    void begin(const float *noise) { sampler_.start(view(noise)); }

    /// One evaluation: `network(t, x, u)` is called with views as `bespoke::sampler::sample` calls a velocity, and writes
    /// the velocity from noise, t = 0, to actions, t = 1. True when the chunk is done.
    template <class Network>
    bool advance(Network &&network) {
        const auto asked = sampler_.query<float>();
        network(asked->t, asked->x, view(velocity_.data()));
        sampler_.update(view(std::as_const(velocity_).data()));
        if (sampler_.row(0).evaluations < sampler_.row(0).nfe) return false;
        sampler_.finish(view(actions_.data()));
        return true;
    }

    /// The last chunk that was done, `[horizon, width]`.
    const float *actions() const noexcept { return actions_.data(); }

private:
    template <class T>
    bespoke::tensor_view<T> view(T *numbers) const {
        return {numbers, {1, horizon_, width_}};
    }

    bespoke::sampler sampler_;
    std::int64_t horizon_, width_;
    std::vector<float> velocity_, actions_;
};

}  // namespace robot

#endif
