#include "network.hpp"

#include <dlfcn.h>

#include "served.hpp"

namespace bespoke_triton {

namespace {

/// A function of a shared library.
class loaded_network : public network {
public:
    explicit loaded_network(const settings &settings) : path_(settings.velocity_library) {
        library_.reset(dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL));
        if (!library_)
            throw failure(TRITONSERVER_ERROR_INVALID_ARG,
                          std::string("parameter velocity_library: ") +
                              dlerror());  // NOLINT(concurrency-mt-unsafe): of glibc it is
        function_ = reinterpret_cast<bespoke_network_fn>(dlsym(library_.get(), settings.velocity_symbol.c_str()));
        if (function_ == nullptr)
            throw invalid("parameter velocity_symbol", '"' + settings.velocity_symbol + '"', "a function of " + path_);
    }

    void forward(const bespoke::call &call) override {
        const std::int32_t answer = function_(nullptr, &call.get());
        if (answer != 0)
            throw failure(TRITONSERVER_ERROR_INTERNAL,
                          "the velocity of " + path_ + " answered " + std::to_string(answer));
    }

private:
    struct closer {
        void operator()(void *library) const noexcept { dlclose(library); }
    };

    std::string path_;
    std::unique_ptr<void, closer> library_;
    bespoke_network_fn function_ = nullptr;
};

/// What a network threw on this thread, on its way through the C library.
thread_local std::exception_ptr thrown;

std::int32_t call_network(void *self, const bespoke_call *call) {
    try {
        static_cast<network *>(self)->forward(bespoke::call(*call));
        return 0;
    } catch (...) {
        thrown = std::current_exception();
        return 1;
    }
}

}  // namespace

velocity::velocity(const settings &settings, TRITONSERVER_Server *server, const std::string &device) {
    if (!settings.velocity_model.empty()) network_ = std::make_unique<served_network>(server, settings);
    if (!settings.velocity_library.empty()) network_ = std::make_unique<loaded_network>(settings);
    model_ =
        std::make_unique<bespoke::model>(network_ ? bespoke::model::host(settings.card, call_network, network_.get())
                                                  : bespoke::model::open(settings.card, device));
}

void velocity::evaluate(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u,
                        const bespoke::condition &condition) const {
    thrown = nullptr;
    try {
        model_->velocity(at.t, at.x, u, condition);
    } catch (const bespoke::error &) {
        if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
        throw;
    }
}

}  // namespace bespoke_triton
