// The thread that answers requests, so that the batch need not wait for it.

#ifndef BESPOKE_TRITON_RESPONDER_HPP
#define BESPOKE_TRITON_RESPONDER_HPP

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "request.hpp"

namespace bespoke_triton {

/// Answers in the order of asking. Any thread may ask.
class responder {
public:
    responder();
    /// Waits until every request is answered.
    ~responder();
    responder(const responder &) = delete;
    responder &operator=(const responder &) = delete;

    /// Sends the states of a request whose samples are all done, or says that they are not finite.
    void answer(std::shared_ptr<request> request);

private:
    void work();

    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::shared_ptr<request>> done_;
    bool stop_ = false;

    std::thread thread_;
};

}  // namespace bespoke_triton

#endif
