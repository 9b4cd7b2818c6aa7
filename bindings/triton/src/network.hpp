// What computes the velocity: a card run inside the library, another served model, or a shared library.

#ifndef BESPOKE_TRITON_NETWORK_HPP
#define BESPOKE_TRITON_NETWORK_HPP

#include <memory>
#include <string>
#include <vector>

#include "bespoke.hpp"
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
    /// Opens what `settings` name. `device` is for a card that the library runs itself.
    velocity(const settings &settings, TRITONSERVER_Server *server, const std::string &device);

    const bespoke::model &model() const noexcept { return *model_; }

    /// u = u_t(x), each sample on its own condition.
    void evaluate(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u,
                  const bespoke::condition &condition) const;

private:
    // The model calls the network: it goes first.
    std::unique_ptr<network> network_;
    std::unique_ptr<bespoke::model> model_;
};

}  // namespace bespoke_triton

#endif
