#include "network.hpp"

#include <dlfcn.h>

#include <list>

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

velocity::velocity(const settings &settings, TRITONSERVER_Server *server, const std::string &device,
                   std::shared_ptr<bespoke_triton::device> place) {
    if (!settings.velocity_model.empty()) {
        place_ = std::move(place);
        network_ = std::make_unique<served_network>(server, settings, place_);
    }
    if (!settings.velocity_library.empty()) network_ = std::make_unique<loaded_network>(settings);
    const auto open = [&] {
        if (place_) return bespoke::model::host_on_device(settings.card, place_->ops(), call_network, network_.get());
        if (network_) return bespoke::model::host(settings.card, call_network, network_.get());
        return bespoke::model::open(settings.card, device);
    };
    model_ = std::make_unique<bespoke::model>(open());
}

namespace {

/// A tensor of a device in host memory, while a model that takes host memory alone works on it.
class borders {
public:
    explicit borders(const device &place) : place_(place) {}

    bespoke::tensor_view<const float> in(bespoke::tensor_view<const float> there) {
        const auto here = room(there);
        place_.copy(here.data(), there.data(), there.size() * sizeof(float));
        return here;
    }
    bespoke::tensor_view<float> room(bespoke::tensor_view<const float> like) {
        held_.emplace_back(like.size());
        return {held_.back().data(), like.dl().shape, like.rank()};
    }
    void out(bespoke::tensor_view<float> there, bespoke::tensor_view<float> here) {
        place_.copy(there.data(), here.data(), here.size() * sizeof(float));
    }

private:
    const device &place_;
    std::list<std::vector<float>> held_;
};

}  // namespace

void velocity::evaluate(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u,
                        const bespoke::condition &condition, const device *place) const {
    thrown = nullptr;
    try {
        if (there(place)) {
            model_->velocity(at.t, at.x, u, condition);
            return;
        }
        borders borders(*place);
        const auto here = borders.room(u);
        model_->velocity(at.t, borders.in(at.x), here, condition);
        borders.out(u, here);
    } catch (const bespoke::error &) {
        if (thrown) std::rethrow_exception(std::exchange(thrown, nullptr));
        throw;
    }
}

void velocity::predict(const bespoke::evaluation<float> &at, bespoke::tensor_view<float> u,
                       bespoke::tensor_view<float> x1, const device *place) const {
    if (there(place)) {
        model_->prediction(at.t, at.x, u, x1);
        return;
    }
    borders borders(*place);
    const auto here = borders.room(x1);
    model_->prediction(at.t, borders.in(at.x), borders.in(u), here);
    borders.out(x1, here);
}

}  // namespace bespoke_triton
