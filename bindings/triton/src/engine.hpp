// The batches of one instance: requests join them between evaluations, and leave when they are done.

#ifndef BESPOKE_TRITON_ENGINE_HPP
#define BESPOKE_TRITON_ENGINE_HPP

#include <condition_variable>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "batch.hpp"
#include "responder.hpp"

namespace bespoke_triton {

/// A thread that owns samplers: samples of one size share evaluations, sizes take turns, and no request has more than
/// its share of either.
class engine {
public:
    /// Samples are in the memory of `place`, or, where that is nullptr, the host's.
    engine(model &model, TRITONBACKEND_ModelInstance *instance, std::shared_ptr<const velocity> velocity,
           std::shared_ptr<device> place);
    /// Waits until every request is answered.
    ~engine();
    engine(const engine &) = delete;
    engine &operator=(const engine &) = delete;

    /// Hands requests over, and returns when no more than `max_rows` are on their way, so that what comes later waits
    /// with Triton, under its queue policy. Without continuous batching: when none is.
    void run(std::vector<std::unique_ptr<request>> requests);

    const std::shared_ptr<device> &place() const noexcept { return place_; }

private:
    /// The requests of one size.
    struct turn {
        bespoke_triton::batch batch;
        /// Calls of the network for each of its requests, counted as for those of the others.
        double had;
    };

    void work();
    bool wait();
    void step();
    /// Requests that have come join the others of their size.
    void take_in();
    void drop_cancelled();
    /// Whose turn it is. There is one.
    turn &next();
    /// One evaluation.
    void evaluate(turn &turn, std::uint64_t step_start);
    void preview(batch &batch, const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u);
    void collect(batch &batch);
    /// Answers a request of the batch with an error.
    void fail(batch &batch, const std::shared_ptr<request> &request, TRITONSERVER_Error *error);
    /// All of them, with the exception at work.
    void fail_all(batch &batch);
    /// So many requests are answered, or about to be.
    void gone(std::size_t requests);
    std::size_t begun() const noexcept;

    model &model_;
    TRITONBACKEND_ModelInstance *instance_;
    std::shared_ptr<const velocity> velocity_;
    std::shared_ptr<device> place_;

    std::mutex mutex_;
    std::condition_variable arrived_, left_;
    std::deque<std::shared_ptr<request>> waiting_;
    /// Requests that are waiting or in a batch.
    std::size_t requests_ = 0;
    bool stop_ = false;

    responder responder_;

    // The thread's own.
    /// One of each size.
    std::list<turn> turns_;
    pace pace_;
    storage u_, predictions_, previews_;
    std::uint64_t network_start_ns_ = 0, network_end_ns_ = 0;

    std::thread thread_;
};

}  // namespace bespoke_triton

#endif
