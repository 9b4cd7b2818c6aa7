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

/// A thread that owns samplers: samples of one size share evaluations, sizes take turns.
class engine {
public:
    engine(model &model, TRITONBACKEND_ModelInstance *instance, std::shared_ptr<const velocity> velocity);
    /// Waits until every request is answered.
    ~engine();
    engine(const engine &) = delete;
    engine &operator=(const engine &) = delete;

    /// Hands requests over, and returns when there is room for all their samples in the batch, so that what
    /// comes later waits with Triton, under its queue policy. Without continuous batching: when all have left it.
    void run(std::vector<std::unique_ptr<request>> requests);

private:
    void work();
    bool wait();
    void step();
    void admit();
    /// The batch that the request's samples belong to, made where there is none; nullptr where it has no room yet.
    batch *place(const request &request);
    void drop_cancelled();
    /// One evaluation of the batch whose turn it is.
    void evaluate(batch &batch, std::uint64_t step_start);
    void preview(batch &batch, const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u);
    void collect(batch &batch);
    /// Answers a request with an error, wherever it stands.
    void fail(std::shared_ptr<request> request, TRITONSERVER_Error *error);
    /// The same for all in a batch, with the exception at work.
    void fail_all(batch &batch);
    /// So many samples are done or given up.
    void gone(std::size_t samples);
    std::size_t rows() const noexcept;

    model &model_;
    TRITONBACKEND_ModelInstance *instance_;
    std::shared_ptr<const velocity> velocity_;

    std::mutex mutex_;
    std::condition_variable arrived_, left_;
    std::deque<std::shared_ptr<request>> waiting_;
    /// In a batch, or waiting to join it.
    std::size_t samples_ = 0;
    bool stop_ = false;

    responder responder_;

    // The thread's own.
    /// One of each size; that of the next turn first.
    std::list<batch> batches_;
    std::vector<float> u_, predictions_, previews_;
    std::uint64_t network_start_ns_ = 0, network_end_ns_ = 0;

    std::thread thread_;
};

}  // namespace bespoke_triton

#endif
