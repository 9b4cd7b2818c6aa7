#include "responder.hpp"

#include <utility>

namespace bespoke_triton {

namespace {

void send(request &request) {
    try {
        if (request.finite()) {
            request.finish();
        } else {
            request.fail(TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "the sample holds a NaN or an infinity"));
        }
    } catch (...) {
        request.fail(current_error());
    }
}

}  // namespace

responder::responder() : thread_([this] { work(); }) {}

responder::~responder() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

void responder::answer(std::shared_ptr<request> request) {
    {
        const std::lock_guard lock(mutex_);
        done_.push_back(std::move(request));
    }
    changed_.notify_one();
}

void responder::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [this] { return stop_ || !done_.empty(); });
        if (done_.empty()) return;
        const auto next = std::move(done_.front());
        done_.pop_front();
        lock.unlock();
        send(*next);
        lock.lock();
    }
}

}  // namespace bespoke_triton
