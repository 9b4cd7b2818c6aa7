// Samples of one size on their way through their solvers.

#ifndef BESPOKE_TRITON_BATCH_HPP
#define BESPOKE_TRITON_BATCH_HPP

#include <memory>
#include <vector>

#include "model.hpp"
#include "request.hpp"

namespace bespoke_triton {

/// A sampler, and of each of its rows whose sample it is. One thread at a time.
class batch {
public:
    /// A sample, row by row as the sampler has them.
    struct row {
        std::shared_ptr<request> of;
        std::size_t index;
        std::uint32_t evaluations;
        bool failed;

        const bespoke_triton::sample &sample() const { return of->samples[index]; }
    };

    /// For samples of the sizes that `like` has.
    batch(model &model, const request &like);

    const bespoke_triton::sizes &sizes() const noexcept { return sizes_; }
    const std::vector<row> &rows() const noexcept { return rows_; }
    /// The requests that have rows, or had and will have.
    const std::vector<std::shared_ptr<request>> &requests() const noexcept { return requests_; }
    /// Numbers of one sample's state, and with those of its inputs.
    std::size_t elements() const noexcept { return elements_; }
    std::size_t numbers() const noexcept { return numbers_; }

    /// `rows` states in the memory of another.
    bespoke::tensor_view<float> view(float *data, std::size_t rows) const;

    /// Takes the next `count` samples of a request in.
    void join(const std::shared_ptr<request> &request, std::size_t count);
    /// The next evaluation of all rows.
    bespoke::evaluation<float> query();
    /// What the rows are conditioned on; put together anew where rows have come or gone.
    const bespoke::condition &condition();
    /// The velocity of that evaluation; rows whose own is not finite fail.
    void update(bespoke::tensor_view<float> u);
    /// Lets a row go, its state to `into` where that is not null. The last row takes its place.
    void leave(std::size_t row, float *into);
    /// The request has no row any more.
    void forget(const request &request);
    /// Lets all of a request go; says how many rows that were.
    std::size_t remove(const request &request);
    /// Gives everything up, whatever state the sampler is in; says whose samples there were.
    std::vector<std::shared_ptr<request>> clear();

private:
    void restart();
    void stack();

    model &model_;
    bespoke_triton::sizes sizes_;
    std::vector<std::int64_t> shape_;
    std::size_t elements_, numbers_;
    std::unique_ptr<bespoke::sampler> sampler_;
    std::vector<row> rows_;
    std::vector<std::shared_ptr<request>> requests_;
    bool stacked_ = false;
    bespoke::condition condition_;
    /// What the inputs of `condition_` point to.
    std::vector<std::vector<char>> inputs_;
};

}  // namespace bespoke_triton

#endif
