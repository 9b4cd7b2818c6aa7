// Samples of one size on their way through their solvers.

#ifndef BESPOKE_TRITON_BATCH_HPP
#define BESPOKE_TRITON_BATCH_HPP

#include <memory>
#include <vector>

#include "device.hpp"
#include "model.hpp"
#include "request.hpp"
#include "shares.hpp"

namespace bespoke_triton {

/// Requests whose samples share calls of the network. A call has as many samples of each as `shares` says, the others
/// stand where they are. One thread at a time.
class batch {
public:
    /// A sample that has begun.
    struct row {
        std::shared_ptr<request> of;
        std::size_t index;
        bespoke::sampler sampler;
        std::uint32_t evaluations = 0;
        bool failed = false;

        const bespoke_triton::sample &sample() const { return of->samples[index]; }
        bool done() const { return evaluations == sample().by->nfe; }
    };
    using rows = std::vector<std::shared_ptr<row>>;

    /// A request that cannot go on, and why.
    struct refusal {
        std::shared_ptr<request> of;
        TRITONSERVER_Error *error;
    };

    /// For samples of the sizes that `like` has, in the memory of `place`, or nullptr for the host's.
    batch(model &model, const request &like, std::shared_ptr<device> place);

    const bespoke_triton::sizes &sizes() const noexcept { return sizes_; }
    /// Numbers of one sample's state, and with those of its inputs.
    std::size_t elements() const noexcept { return elements_; }
    std::size_t numbers() const noexcept { return numbers_; }
    /// Requests that are not done, and samples that have begun.
    std::size_t requests() const noexcept { return members_.size(); }
    std::size_t begun() const noexcept;

    /// Takes a request in.
    void add(std::shared_ptr<request> request);
    bool has(const request &request) const noexcept;
    /// Lets a request go, wherever its samples stand.
    void remove(const request &request);
    std::vector<std::shared_ptr<request>> cancelled() const;
    /// Gives everything up; says whose samples there were.
    std::vector<std::shared_ptr<request>> clear();

    /// Makes up the next call. What is refused has no samples in it, and is to be removed.
    std::vector<refusal> choose(const pace &pace);
    /// Its samples, those of one request beside each other; and their requests.
    const rows &call() const noexcept { return call_; }
    const std::vector<std::shared_ptr<request>> &asked() const noexcept { return asked_; }
    /// The evaluation: its times in host memory, its states in that of the samples.
    bespoke::evaluation<float> query();
    /// What its samples are conditioned on; put together anew where they are others than in the call before.
    const bespoke::condition &condition();
    /// The velocity of that evaluation; samples whose own is not finite fail.
    void update(bespoke::tensor_view<float> u);
    /// Lets the samples of the call go that are done; says whose were the last ones.
    std::vector<std::shared_ptr<request>> finish();

    /// `rows` states in the memory of another, of the same place.
    bespoke::tensor_view<float> view(float *data, std::size_t rows) const;

private:
    /// The same of one, without a copy of the shape.
    bespoke::tensor_view<float> one(float *data) const {
        return bespoke::tensor_view<float>(data, shape_.data(), shape_.size()).on(where_);
    }
    /// Where a sample's state is.
    float *state(const row &row) const { return row.of->states.data() + row.index * elements_; }
    /// The states of the call, one after the other.
    float *stacked_states();

    /// A request, and its samples that have begun and are not done.
    struct member {
        std::shared_ptr<request> of;
        batch::rows rows;
    };

    /// Begins samples of a request until it has so many under way.
    void begin(member &member, std::size_t count) const;
    void stack();

    model &model_;
    std::shared_ptr<device> place_;
    DLDevice where_{kDLCPU, 0};
    bespoke_triton::sizes sizes_;
    /// Of one state, its row in front.
    std::vector<std::int64_t> shape_;
    std::size_t elements_, numbers_;
    /// In the order of their turns.
    std::vector<member> members_;

    rows call_;
    std::vector<std::shared_ptr<request>> asked_;
    std::vector<float> times_;
    storage states_;
    bool stacked_ = false;
    bespoke::condition condition_;
    /// What the inputs of `condition_` point to.
    std::vector<std::vector<char>> inputs_;
};

}  // namespace bespoke_triton

#endif
