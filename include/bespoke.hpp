// libbespoke for C++17: owners, exceptions and callables over bespoke.h. Header only.
//
// Every failure is a bespoke::error with its status and message. A callback is any callable; what it
// throws passes through the C library and comes out of the call that it was given to.

#ifndef BESPOKE_HPP
#define BESPOKE_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "bespoke.h"

namespace bespoke {

/// A call that failed.
class error : public std::runtime_error {
public:
    error(bespoke_status status, const std::string &message) : std::runtime_error(message), status_(status) {}

    /// BESPOKE_ERROR_...
    bespoke_status status() const noexcept { return status_; }

    /// "BESPOKE_ERROR_..."
    const char *status_name() const noexcept { return bespoke_status_name(status_); }

private:
    bespoke_status status_;
};

/// Throws what `status` says, if it is a failure.
inline void check(bespoke_status status) {
    if (status != BESPOKE_OK) throw error(status, bespoke_last_error_message());
}

/// The DLPack dtype of a C++ type. Specialise it for a 16-bit type of your own:
/// `template <> struct bespoke::dtype_of<half> { static constexpr DLDataType value{kDLFloat, 16, 1}; };`
template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
    static constexpr DLDataType value{kDLFloat, 32, 1};
};
template <>
struct dtype_of<double> {
    static constexpr DLDataType value{kDLFloat, 64, 1};
};
template <>
struct dtype_of<std::int64_t> {
    static constexpr DLDataType value{kDLInt, 64, 1};
};
template <>
struct dtype_of<std::int32_t> {
    static constexpr DLDataType value{kDLInt, 32, 1};
};
template <>
struct dtype_of<bool> {
    static constexpr DLDataType value{kDLBool, 8, 1};
};

/// A batch of samples in host memory, borrowed: like std::span, with a shape. `T` is const for what
/// is only read, and such a view is not taken where the library writes. A view `on` a device is for a sampler with that
/// device's `device_ops`; its numbers are not for this program to touch.
template <class T>
class tensor_view {
public:
    using value_type = std::remove_const_t<T>;
    static constexpr std::size_t max_rank = 8;

    /// Contiguous memory of `shape`, the batch first.
    tensor_view(T *data, std::initializer_list<std::int64_t> shape) : tensor_view(data, shape.begin(), shape.size()) {}

    /// Memory of `shape` at `strides`, in numbers.
    tensor_view(T *data, std::initializer_list<std::int64_t> shape, std::initializer_list<std::int64_t> strides)
        : tensor_view(data, shape.begin(), shape.size()) {
        if (strides.size() != rank_)
            throw std::invalid_argument("bespoke::tensor_view: strides and shape differ in length");
        std::size_t i = 0;
        for (std::int64_t stride : strides) strides_[i++] = stride;
        strided_ = true;
    }

    /// Contiguous memory of `rank` sizes.
    tensor_view(T *data, const std::int64_t *shape, std::size_t rank) : data_(data), rank_(rank) {
        if (rank > max_rank) throw std::invalid_argument("bespoke::tensor_view: more than 8 dimensions");
        for (std::size_t i = 0; i < rank; i++) shape_[i] = shape[i];
    }

    /// What the library lends, which is contiguous.
    explicit tensor_view(const DLTensor &tensor)
        : tensor_view(reinterpret_cast<T *>(static_cast<char *>(tensor.data) + tensor.byte_offset), tensor.shape,
                      static_cast<std::size_t>(tensor.ndim)) {
        constexpr DLDataType own = dtype_of<value_type>::value;
        if (tensor.dtype.code != own.code || tensor.dtype.bits != own.bits || tensor.dtype.lanes != own.lanes)
            throw std::invalid_argument("bespoke::tensor_view: the tensor has another dtype");
        device_ = tensor.device;
    }

    /// The same, of memory of `device`.
    tensor_view on(DLDevice device) const noexcept {
        tensor_view view = *this;
        view.device_ = device;
        return view;
    }

    /// A view that writes is also one that reads.
    template <class U, class = std::enable_if_t<std::is_same_v<U, T> && !std::is_const_v<U>>>
    operator tensor_view<const U>() const {
        tensor_view<const U> view(data_, shape_.data(), rank_);
        if (strided_) view.set_strides(strides_.data());
        return view.on(device_);
    }

    T *data() const noexcept { return data_; }
    /// Whose memory it is.
    DLDevice device() const noexcept { return device_; }
    std::size_t rank() const noexcept { return rank_; }
    /// Size of a dimension; the batch is dimension 0.
    std::int64_t extent(std::size_t dimension) const { return shape_.at(dimension); }
    std::size_t batch() const { return static_cast<std::size_t>(extent(0)); }
    /// Numbers in all.
    std::size_t size() const noexcept {
        std::int64_t size = 1;
        for (std::size_t i = 0; i < rank_; i++) size *= shape_[i];
        return static_cast<std::size_t>(size);
    }
    /// Number i of contiguous memory.
    T &operator[](std::size_t i) const noexcept { return data_[i]; }
    T *begin() const noexcept { return data_; }
    T *end() const noexcept { return data_ + size(); }

    /// As the C library takes it; valid while this view is.
    DLTensor dl() const noexcept {
        DLTensor tensor{};  // NOLINT(bugprone-invalid-enum-default-initialization): it is set below
        tensor.data = const_cast<value_type *>(data_);
        tensor.device = device_;
        tensor.ndim = static_cast<std::int32_t>(rank_);
        tensor.dtype = dtype_of<value_type>::value;
        tensor.shape = const_cast<std::int64_t *>(shape_.data());
        tensor.strides = strided_ ? const_cast<std::int64_t *>(strides_.data()) : nullptr;
        return tensor;
    }

    void set_strides(const std::int64_t *strides) {
        for (std::size_t i = 0; i < rank_; i++) strides_[i] = strides[i];
        strided_ = true;
    }

private:
    T *data_;
    std::size_t rank_;
    std::array<std::int64_t, max_rank> shape_{};
    std::array<std::int64_t, max_rank> strides_{};
    bool strided_ = false;
    DLDevice device_{kDLCPU, 0};
};

/// A tensor_view of any dtype, for a network's named inputs: what a condition holds. The numbers stay the lender's.
class any_view {
public:
    template <class T>
    any_view(tensor_view<T> view) : any_view(view.dl()) {}

    explicit any_view(const DLTensor &tensor) : tensor_(tensor), shape_(tensor.shape, tensor.shape + tensor.ndim) {
        if (tensor.strides != nullptr) strides_.assign(tensor.strides, tensor.strides + tensor.ndim);
    }

    /// As the C library takes it; valid while this view is.
    DLTensor dl() const noexcept {
        DLTensor tensor = tensor_;
        tensor.shape = const_cast<std::int64_t *>(shape_.data());
        tensor.strides = strides_.empty() ? nullptr : const_cast<std::int64_t *>(strides_.data());
        return tensor;
    }

    std::size_t batch() const noexcept { return static_cast<std::size_t>(shape_[0]); }

private:
    DLTensor tensor_;
    std::vector<std::int64_t> shape_, strides_;
};

/// What each sample of a batch is conditioned on; all of it may be left out.
struct condition {
    /// Class of each sample, for a card that says `classes`.
    std::vector<std::int64_t> classes;
    /// Guidance of each sample; none is 1, off.
    std::vector<double> guidance_scale;
    /// The network's named inputs, `[batch, ...]` each.
    std::map<std::string, any_view> inputs;
    /// The scales of a card's chain of passes by name, one number a sample each.
    std::map<std::string, std::vector<double>> scales;
};

/// One evaluation that the library asks of the host: bespoke_call with views. Valid during the call.
class call {
public:
    explicit call(const bespoke_call &asked) noexcept : asked_(asked) {}

    tensor_view<const float> time() const { return tensor_view<const float>(*asked_.time); }
    tensor_view<const float> x() const { return tensor_view<const float>(*asked_.x); }
    /// To be written: the network's output, or the velocity.
    tensor_view<float> output() const { return tensor_view<float>(*asked_.output); }
    tensor_view<const float> cotangent() const { return tensor_view<const float>(*asked_.cotangent); }
    /// To be written by a vjp.
    tensor_view<float> by_x() const { return tensor_view<float>(*asked_.by_x); }
    tensor_view<float> by_t() const { return tensor_view<float>(*asked_.by_t); }

    /// The input called `name`, or nullptr.
    const DLTensor *input(const char *name) const noexcept {
        for (std::uint32_t i = 0; i < asked_.input_count; i++)
            if (std::string_view(asked_.inputs[i].name) == name) return asked_.inputs[i].tensor;
        return nullptr;
    }

    /// The classes of a card that says `classes`, one a sample, or nullptr.
    const std::int64_t *classes() const noexcept {
        const DLTensor *classes = input("class");
        return classes == nullptr ? nullptr : static_cast<const std::int64_t *>(classes->data);
    }

    const bespoke_call &get() const noexcept { return asked_; }

private:
    const bespoke_call &asked_;
};

namespace detail {

template <class T, void (*Free)(T *)>
struct deleter {
    void operator()(T *object) const noexcept { Free(object); }
};
template <class T, void (*Free)(T *)>
using handle = std::unique_ptr<T, deleter<T, Free>>;

/// Keeps what a callback throws until the C call has returned.
class carrier {
public:
    template <class Body>
    std::int32_t run(Body &&body) noexcept {
        try {
            body();
            return 0;
        } catch (...) {
            thrown_ = std::current_exception();
            return 1;
        }
    }

    void finish(bespoke_status status) {
        if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
        check(status);
    }

private:
    std::exception_ptr thrown_;
};

/// A callable as a bespoke_velocity_fn.
template <class T, class Velocity>
struct velocity_call {
    Velocity &velocity;
    carrier carried{};

    static std::int32_t call(void *self, const DLTensor *t, const DLTensor *x, DLTensor *u) {
        auto &own = *static_cast<velocity_call *>(self);
        return own.carried.run(
            [&] { own.velocity(tensor_view<const float>(*t), tensor_view<const T>(*x), tensor_view<T>(*u)); });
    }
};

}  // namespace detail

/// How a model's output makes the velocity at solver time `t`; arguments as `bespoke_output_velocity` takes them.
inline bespoke_velocity_scalars output_velocity(const std::string &scheduler, const std::string &output, double t) {
    bespoke_velocity_scalars scalars{};
    check(bespoke_output_velocity(scheduler.c_str(), output.c_str(), 1, &t, &scalars));
    return scalars;
}

/// A solver. Immutable; any thread.
class theta {
public:
    /// Reads a theta file.
    static theta load(const std::string &path) {
        bespoke_theta *out = nullptr;
        check(bespoke_load_theta(path.c_str(), &out));
        return theta(out);
    }

    /// Reads a theta from the text of its file.
    static theta parse(const std::string &json) {
        bespoke_theta *out = nullptr;
        check(bespoke_theta_parse(json.c_str(), &out));
        return theta(out);
    }

    /// The published solver `name` with `nfe` evaluations, as ("dpm++2m", 10, "vp"); `name` and
    /// `scheduler` as `bespoke_theta_solver` takes them.
    static theta solver(const std::string &name, std::uint32_t nfe, const std::string &scheduler) {
        bespoke_theta *out = nullptr;
        check(bespoke_theta_solver(name.c_str(), nfe, scheduler.c_str(), &out));
        return theta(out);
    }

    /// Takes over what the C library made.
    explicit theta(bespoke_theta *owned) noexcept : handle_(owned) {}

    /// The same solver, whose samplers take a model's `output` wherever they else take the velocity;
    /// `scheduler` and `output` as `bespoke_theta_for_output` takes them.
    theta for_output(const std::string &scheduler, const std::string &output) const {
        bespoke_theta *out = nullptr;
        check(bespoke_theta_for_output(get(), scheduler.c_str(), output.c_str(), &out));
        return theta(out);
    }

    /// A published solver as a theta of family `ns`, with a document; a learned one as it is.
    theta compile() const {
        bespoke_theta *out = nullptr;
        check(bespoke_theta_compile(get(), &out));
        return theta(out);
    }

    /// Writes a theta file, as bespoke_theta_save does.
    void save(const std::string &path) const { check(bespoke_theta_save(get(), path.c_str())); }

    bespoke_theta_properties info() const {
        bespoke_theta_properties properties{};
        properties.struct_size = sizeof properties;
        check(bespoke_theta_info(get(), &properties));
        return properties;
    }

    std::uint32_t steps() const { return info().steps; }
    std::uint32_t nfe() const { return info().nfe; }

    /// The scalars of evaluation k; its arrays live as long as this theta.
    bespoke_stage stage(std::uint32_t k) const {
        bespoke_stage stage{};
        stage.struct_size = sizeof stage;
        check(bespoke_theta_stage(get(), k, &stage));
        return stage;
    }

    const bespoke_theta *get() const noexcept { return handle_.get(); }

private:
    detail::handle<bespoke_theta, bespoke_theta_free> handle_;
};

/// Thetas of one model for several nfe. Immutable; any thread.
class ladder {
public:
    /// Reads a ladder file, or a theta file as a ladder of one.
    static ladder load(const std::string &path) {
        bespoke_ladder *out = nullptr;
        check(bespoke_ladder_load(path.c_str(), &out));
        return ladder(out);
    }

    /// Takes over what the C library made.
    explicit ladder(bespoke_ladder *owned) noexcept : handle_(owned) {}

    /// The theta of the greatest nfe that is at most `nfe_at_most`; it outlives the ladder.
    theta best(std::uint32_t nfe_at_most) const {
        bespoke_theta *out = nullptr;
        check(bespoke_ladder_theta(get(), nfe_at_most, &out));
        return theta(out);
    }

    const bespoke_ladder *get() const noexcept { return handle_.get(); }

private:
    detail::handle<bespoke_ladder, bespoke_ladder_free> handle_;
};

/// A solver as users write it, taken apart: of the published ones, of the host's own files, or the ground truth.
struct reference {
    /// BESPOKE_REFERENCE_...
    std::uint32_t kind;
    /// Of a file, its index among the host's.
    std::size_t file;
    /// Of a published solver NAME or NAME:GRID, as bespoke_theta_solver takes it.
    std::string name;
    /// Evaluations of a published solver, at most so many of a file; none where the text says none.
    std::optional<std::uint32_t> nfe;

    /// Reads NAME@NFE, NAME@NFE:GRID, FILE, FILE@NFE or gt, as the command line does; `files` are names of the host's.
    static reference parse(const std::string &text, const std::vector<std::string> &files) {
        std::vector<const char *> names;
        names.reserve(files.size());
        for (const std::string &file : files) names.push_back(file.c_str());
        bespoke_reference found{};
        found.struct_size = sizeof found;
        check(bespoke_reference_parse(text.c_str(), names.data(), static_cast<std::uint32_t>(names.size()), &found));
        std::string name = text.substr(0, found.name_length);
        if (found.grid_begin != 0) name += ':' + text.substr(found.grid_begin);
        const auto nfe = found.nfe == 0 ? std::nullopt : std::optional<std::uint32_t>(found.nfe);
        return {found.kind, found.file, std::move(name), nfe};
    }
};

/// What a sampler asks the host for.
template <class T>
struct evaluation {
    /// One time in [0, 1] for each sample.
    tensor_view<const float> t;
    /// The states.
    tensor_view<const T> x;
};

/// Scratch of one batch; one thread at a time.
class sampler {
public:
    /// `options.device_ops`, where it is given, need only live during the call; its context as long as the sampler.
    explicit sampler(const theta &theta, bespoke_sampler_options options = {}) {
        options.struct_size = sizeof options;
        bespoke_sampler *out = nullptr;
        check(bespoke_sampler_new(theta.get(), &options, &out));
        handle_.reset(out);
    }

    /// One step from and to `x`. `velocity` is called with (tensor_view<const float> t,
    /// tensor_view<const T> x, tensor_view<T> u) and writes u.
    template <class T, class Velocity>
    void step(const theta &theta, std::uint32_t step, tensor_view<T> x, Velocity &&velocity) {
        static_assert(!std::is_const_v<T>, "x is written");
        detail::velocity_call<T, std::remove_reference_t<Velocity>> call{velocity};
        DLTensor tensor = x.dl();
        call.carried.finish(bespoke_step(theta.get(), get(), step, &tensor, call.call, &call));
    }

    /// The whole solve, in place.
    template <class T, class Velocity>
    void sample(const theta &theta, tensor_view<T> x, Velocity &&velocity) {
        sample(theta, tensor_view<const T>(x), x, velocity);
    }

    /// The whole solve from `x0` to `x1`.
    template <class T, class Velocity>
    void sample(const theta &theta, tensor_view<const T> x0, tensor_view<T> x1, Velocity &&velocity) {
        detail::velocity_call<T, std::remove_reference_t<Velocity>> call{velocity};
        const DLTensor from = x0.dl();
        DLTensor to = x1.dl();
        call.carried.finish(bespoke_sample(theta.get(), get(), &from, &to, call.call, &call));
    }

    /// Begins a batch with the sampler's own theta.
    template <class T>
    void start(tensor_view<T> x0) {
        const DLTensor tensor = x0.dl();
        check(bespoke_sampler_start(get(), &tensor));
    }

    /// Adds samples at the start of `theta`.
    template <class T>
    void join(const theta &theta, tensor_view<T> x0) {
        const DLTensor tensor = x0.dl();
        check(bespoke_sampler_join(get(), theta.get(), &tensor));
    }

    /// Adds samples at the start of the sampler's own theta.
    template <class T>
    void join(tensor_view<T> x0) {
        const DLTensor tensor = x0.dl();
        check(bespoke_sampler_join(get(), nullptr, &tensor));
    }

    /// What to evaluate next; nothing when all samples are done. Valid until the next call.
    template <class T>
    std::optional<evaluation<T>> query() {
        const DLTensor *t = nullptr, *x = nullptr;
        check(bespoke_sampler_query(get(), &t, &x));
        if (t == nullptr) return std::nullopt;
        return evaluation<T>{tensor_view<const float>(*t), tensor_view<const T>(*x)};
    }

    /// Takes in the velocity of the last query.
    template <class T>
    void update(tensor_view<T> u) {
        const DLTensor tensor = u.dl();
        check(bespoke_sampler_update(get(), &tensor));
    }

    /// Evaluation `k`: from its states `x` and their velocity `u` to the states of the next, as
    /// `bespoke_sampler_advance` has it.
    template <class X, class U, class T>
    void advance(std::uint32_t k, tensor_view<X> x, tensor_view<U> u, tensor_view<T> next) {
        static_assert(!std::is_const_v<T>, "next is written");
        const DLTensor state = x.dl(), velocity = u.dl();
        DLTensor tensor = next.dl();
        check(bespoke_sampler_advance(get(), k, &state, &velocity, &tensor));
    }

    /// Writes x(1) of the whole batch.
    template <class T>
    void finish(tensor_view<T> x) {
        static_assert(!std::is_const_v<T>, "x is written");
        DLTensor tensor = x.dl();
        check(bespoke_sampler_finish(get(), &tensor));
    }

    /// Takes a sample out and writes its state, [1, ...]; the last sample moves into its place.
    template <class T>
    void leave(std::uint32_t row, tensor_view<T> x) {
        static_assert(!std::is_const_v<T>, "x is written");
        DLTensor tensor = x.dl();
        check(bespoke_sampler_leave(get(), row, &tensor));
    }

    /// Takes a sample out and drops it.
    void leave(std::uint32_t row) { check(bespoke_sampler_leave(get(), row, nullptr)); }

    bespoke_row row(std::uint32_t row) const {
        bespoke_row progress{};
        progress.struct_size = sizeof progress;
        check(bespoke_sampler_row(get(), row, &progress));
        return progress;
    }

    std::uint32_t batch() const {
        std::uint32_t batch = 0;
        check(bespoke_sampler_batch(get(), &batch));
        return batch;
    }

    /// Of every sample, whether the numbers of its state are all finite: 1 or 0. Waits for a device.
    std::vector<std::uint8_t> finite() {
        std::vector<std::uint8_t> answers(batch());
        check(bespoke_sampler_finite(get(), static_cast<std::uint32_t>(answers.size()), answers.data()));
        return answers;
    }

    bespoke_sampler *get() const noexcept { return handle_.get(); }

private:
    detail::handle<bespoke_sampler, bespoke_sampler_free> handle_;
};

namespace detail {

/// A condition as the C library takes it, for a batch. It borrows from the one it is made of.
class lent_condition {
public:
    lent_condition(const condition &on, std::size_t batch) {
        const auto numbers = [&](const auto &values) {
            if (!values.empty() && values.size() != batch)
                throw std::invalid_argument("bespoke::condition: one number a sample");
            return values.empty() ? nullptr : values.data();
        };
        tensors_.reserve(on.inputs.size());
        inputs_.reserve(on.inputs.size());
        for (const auto &[name, view] : on.inputs) {
            tensors_.push_back(view.dl());
            inputs_.push_back({name.c_str(), &tensors_.back()});
        }
        scales_.reserve(on.scales.size());
        for (const auto &[name, values] : on.scales) scales_.push_back({name.c_str(), numbers(values)});
        lent_.struct_size = sizeof lent_;
        lent_.batch = static_cast<std::uint32_t>(batch);
        lent_.classes = numbers(on.classes);
        lent_.guidance_scale = numbers(on.guidance_scale);
        lent_.inputs = inputs_.data();
        lent_.input_count = static_cast<std::uint32_t>(inputs_.size());
        lent_.scales = scales_.data();
        lent_.scale_count = static_cast<std::uint32_t>(scales_.size());
    }

    lent_condition(const lent_condition &) = delete;
    lent_condition &operator=(const lent_condition &) = delete;

    const bespoke_condition &get() const noexcept { return lent_; }

private:
    std::vector<DLTensor> tensors_;
    std::vector<bespoke_input> inputs_;
    std::vector<bespoke_scale> scales_;
    bespoke_condition lent_{};
};

}  // namespace detail

/// A condition for many evaluations: copied once, with what a model makes of it. Immutable; any thread, and copies share it.
class kept_condition {
public:
    explicit kept_condition(const condition &on = {}) {
        std::size_t batch = std::max(on.classes.size(), on.guidance_scale.size());
        for (const auto &[name, values] : on.scales) batch = std::max(batch, values.size());
        bespoke_kept_condition *out = nullptr;
        check(bespoke_condition_keep(&detail::lent_condition(on, batch).get(), &out));
        handle_.reset(out, bespoke_kept_condition_free);
    }

    const bespoke_kept_condition *get() const noexcept { return handle_.get(); }

    /// The condition that says to use it.
    bespoke_condition use() const noexcept {
        bespoke_condition condition{};
        condition.struct_size = sizeof condition;
        condition.kept = get();
        return condition;
    }

private:
    std::shared_ptr<bespoke_kept_condition> handle_;
};

/// A model that the library runs. Immutable; any thread.
class model {
public:
    /// Opens a model card on `device`: cpu, cuda, cuda:INDEX, and for ONNX tensorrt or tensorrt:INDEX.
    static model open(const std::string &path, const std::string &device = "cpu") {
        bespoke_model *out = nullptr;
        check(bespoke_model_open(path.c_str(), device.c_str(), &out));
        return model(out);
    }

    /// Opens a card of runtime `host` around a network of the host: see bespoke_model_host.
    static model host(const std::string &path, bespoke_network_fn network, void *user_data) {
        bespoke_model *out = nullptr;
        check(bespoke_model_host(path.c_str(), network, user_data, &out));
        return model(out);
    }

    /// The same, of samples on the device of `ops`: see bespoke_model_host_on_device.
    static model host_on_device(const std::string &path, const bespoke_device_ops &ops, bespoke_network_fn network,
                                void *user_data) {
        bespoke_model *out = nullptr;
        check(bespoke_model_host_on_device(path.c_str(), &ops, network, user_data, &out));
        return model(out);
    }

    explicit model(bespoke_model *owned) noexcept : handle_(owned) {}

    bespoke_model_properties info() const {
        bespoke_model_properties properties{};
        properties.struct_size = sizeof properties;
        check(bespoke_model_info(get(), &properties));
        return properties;
    }

    /// u = u_t(x) of samples on `condition`.
    template <class X, class U>
    void velocity(tensor_view<const float> t, tensor_view<X> x, tensor_view<U> u,
                  const condition &condition = {}) const {
        static_assert(!std::is_const_v<U>, "u is written");
        evaluate(get(), t, x.dl(), u.dl(), detail::lent_condition(condition, t.batch()).get());
    }

    /// u = u_t(x) of samples on a condition that was kept.
    template <class X, class U>
    void velocity(tensor_view<const float> t, tensor_view<X> x, tensor_view<U> u, const kept_condition &kept) const {
        static_assert(!std::is_const_v<U>, "u is written");
        evaluate(get(), t, x.dl(), u.dl(), kept.use());
    }

    /// The velocity as a callable for `sampler::step` and `sampler::sample`, of one condition, which is kept: what it
    /// borrows may go. The model must live as long as it is called.
    auto field(const condition &condition = {}) const {
        return [own = get(), kept = kept_condition(condition)](tensor_view<const float> t, auto x, auto u) {
            evaluate(own, t, x.dl(), u.dl(), kept.use());
        };
    }

    /// x1 = the data that the velocity u at x points to.
    template <class X, class U, class X1>
    void prediction(tensor_view<const float> t, tensor_view<X> x, tensor_view<U> u, tensor_view<X1> x1) const {
        static_assert(!std::is_const_v<X1>, "x1 is written");
        const DLTensor times = t.dl(), states = x.dl(), velocities = u.dl();
        DLTensor predictions = x1.dl();
        check(bespoke_model_prediction(get(), &times, &states, &velocities, &predictions));
    }

    const bespoke_model *get() const noexcept { return handle_.get(); }

private:
    static void evaluate(const bespoke_model *model, tensor_view<const float> t, DLTensor x, DLTensor u,
                         const bespoke_condition &condition) {
        const DLTensor times = t.dl();
        check(bespoke_model_velocity(model, &condition, &times, &x, &u));
    }

    detail::handle<bespoke_model, bespoke_model_free> handle_;
};

/// What training calls back; any of them may be empty.
struct train_callbacks {
    /// Told of every iteration; true goes on, false stops with the best theta so far.
    std::function<bool(const bespoke_train_progress &)> progress;
    /// The host's own field, where the config has `field` in place of `model`: writes `output()`.
    std::function<void(const call &)> velocity;
    /// Its vector-Jacobian product for `cotangent()`: writes `by_x()` and `by_t()`.
    std::function<void(const call &)> vjp;
};

namespace detail {

/// std::functions as C callbacks.
struct train_call {
    const train_callbacks &callbacks;
    carrier carried{};

    static std::int32_t progress(void *self, const bespoke_train_progress *progress) {
        auto &own = *static_cast<train_call *>(self);
        bool on = false;
        std::int32_t failed = own.carried.run([&] { on = own.callbacks.progress(*progress); });
        return failed != 0 || !on ? 1 : 0;
    }

    static std::int32_t velocity(void *self, const bespoke_call *asked) {
        auto &own = *static_cast<train_call *>(self);
        return own.carried.run([&] { own.callbacks.velocity(call(*asked)); });
    }

    static std::int32_t vjp(void *self, const bespoke_call *asked) {
        auto &own = *static_cast<train_call *>(self);
        return own.carried.run([&] { own.callbacks.vjp(call(*asked)); });
    }
};

}  // namespace detail

/// Learns a theta. `config_json` is the document that the program takes as `--config`.
inline theta train(const std::string &config_json, const train_callbacks &callbacks = {}) {
    detail::train_call call{callbacks};
    bespoke_train_callbacks c{};
    c.struct_size = sizeof c;
    c.user_data = &call;
    if (callbacks.progress) c.progress = detail::train_call::progress;
    if (callbacks.velocity) c.velocity = detail::train_call::velocity;
    if (callbacks.vjp) c.vjp = detail::train_call::vjp;
    bespoke_theta *out = nullptr;
    const bespoke_status status = bespoke_train(config_json.c_str(), &c, &out);
    theta trained(out);
    call.carried.finish(status);
    return trained;
}

/// Standard normal noise of the samples `first`, `first` + 1, ... of `seed`.
template <class T>
void noise(std::uint64_t seed, std::uint64_t first, tensor_view<T> x) {
    static_assert(!std::is_const_v<T>, "x is written");
    DLTensor tensor = x.dl();
    check(bespoke_noise(seed, first, &tensor));
}

/// The library's version.
inline std::string version() { return bespoke_version(); }

}  // namespace bespoke

#endif
