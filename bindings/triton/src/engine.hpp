// The batch of one instance: requests join it between evaluations, and leave when they are done.

#ifndef BESPOKE_TRITON_ENGINE_HPP
#define BESPOKE_TRITON_ENGINE_HPP

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "model.hpp"
#include "request.hpp"
#include "responder.hpp"

namespace bespoke_triton {

/// A thread that owns a sampler.
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
    /// A sample in the batch; row by row as the sampler has them.
    struct row {
        std::shared_ptr<request> of;
        std::size_t index;
        std::uint32_t evaluations;
        bool failed;
    };

    void work();
    bool wait();
    void step();
    void admit();
    void join(const std::shared_ptr<request> &request, std::size_t count);
    void drop_cancelled();
    /// One evaluation of the batch.
    void evaluate(std::uint64_t step_start);
    void condition();
    void preview(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u);
    void take_in(bespoke::tensor_view<float> u);
    void collect();
    void leave(std::size_t row, float *into);
    /// Takes what the request has out of the batch.
    void remove(const request &request);
    /// Answers a request with an error, wherever it stands.
    void fail(std::shared_ptr<request> request, TRITONSERVER_Error *error);
    /// The same for all in the batch, with the exception at work.
    void fail_all();
    /// So many samples are done or given up.
    void gone(std::size_t samples);
    bespoke::tensor_view<float> view(float *data, std::size_t rows) const;

    model &model_;
    TRITONBACKEND_ModelInstance *instance_;
    std::shared_ptr<const velocity> velocity_;

    std::mutex mutex_;
    std::condition_variable arrived_, left_;
    std::deque<std::shared_ptr<request>> waiting_;
    /// In the batch, or waiting to join it.
    std::size_t samples_ = 0;
    bool stop_ = false;

    responder responder_;

    // The thread's own.
    std::unique_ptr<bespoke::sampler> sampler_;
    std::vector<row> rows_;
    /// The requests that have rows.
    std::vector<std::shared_ptr<request>> active_;
    std::vector<std::int64_t> classes_;
    std::vector<double> guidance_scale_;
    std::vector<float> u_, predictions_, previews_;
    std::uint64_t network_start_ns_ = 0, network_end_ns_ = 0;

    std::thread thread_;
};

}  // namespace bespoke_triton

#endif
