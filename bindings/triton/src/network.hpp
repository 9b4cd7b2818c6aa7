// What computes the velocity: a card run inside the library, another served model, or a shared library.

#ifndef BESPOKE_TRITON_NETWORK_HPP
#define BESPOKE_TRITON_NETWORK_HPP

#include <memory>
#include <string>
#include <vector>

#include "bespoke.hpp"
#include "device.hpp"
#include "settings.hpp"

namespace bespoke_triton {

/// A network that the library does not run itself. Any thread.
class network {
public:
    virtual ~network() = default;

    /// One pass, as bespoke_network_fn says. What it throws comes out of velocity::evaluate.
    virtual void forward(const bespoke::call &call) = 0;
};

/// The velocity of a model. Any thread.
class velocity {
public:
    /// Opens what `settings` name. `device` is for a card that the library runs itself. A served network is asked in the
    /// memory of `place`, where there is one, and is then for one instance alone.
    velocity(const settings &settings, TRITONSERVER_Server *server, const std::string &device,
             std::shared_ptr<bespoke_triton::device> place);

    const bespoke::model &model() const noexcept { return *model_; }

    /// u = u_t(x), each sample on its own condition. States and velocities are in the memory of `place`, or, where that is
    /// nullptr, the host's.
    void evaluate(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u,
                  const bespoke::condition &condition, const device *place) const;
    /// x1 = the data that u points to, in the same memory.
    void predict(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u, bespoke::tensor_view<float> x1,
                 const device *place) const;

private:
    /// Whether its model takes what `place` has where it is.
    bool there(const device *place) const noexcept { return place == nullptr || place == place_.get(); }

    std::shared_ptr<device> place_;
    // The model calls the network: it goes first.
    std::unique_ptr<network> network_;
    std::unique_ptr<bespoke::model> model_;
};

}  // namespace bespoke_triton

#endif
