// bespoke.hpp: owners, exceptions, callables.
//
//     abi THETA LADDER CARD
//
// THETA is the identity, midpoint with nfe 4; LADDER has nfe 4 and 8.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>

// clang-format off: it drops the second inclusion, which is there to show that it is harmless.
#include "bespoke.h"
#include "bespoke.hpp"
#include "bespoke.hpp"
#include "fake_device.h"
// clang-format on

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (0)

using bespoke::tensor_view;

struct out_of_luck {
    int number;
};

static auto decay = [](tensor_view<const float>, auto x, auto u) {
    for (std::size_t i = 0; i < x.size(); i++) u[i] = -x[i];
};

template <class Call>
static bespoke_status status_of(Call &&call) {
    try {
        call();
        return BESPOKE_OK;
    } catch (const bespoke::error &failure) {
        CHECK(std::strlen(failure.what()) > 0);
        CHECK(std::strcmp(failure.status_name(), bespoke_status_name(failure.status())) == 0);
        return failure.status();
    }
}

// Whether `call` lets out_of_luck out, with `number`.
template <class Call>
static bool throws(int number, Call &&call) {
    try {
        call();
    } catch (const out_of_luck &thrown) {
        return thrown.number == number;
    }
    return false;
}

static void exceptions(const bespoke::theta &theta) {
    bespoke::sampler sampler(theta);
    float numbers[2] = {1.0f, 2.0f};
    tensor_view<float> x(numbers, {1, 2});
    int calls = 0;
    auto failing = [&](auto, auto, auto) {
        calls++;
        throw out_of_luck{calls};
    };
    CHECK(throws(1, [&] { sampler.sample(theta, x, failing); }));
    CHECK(throws(2, [&] { sampler.step(theta, 0, x, failing); }));
    CHECK(calls == 2 && numbers[0] == 1.0f && numbers[1] == 2.0f);
    // The library's own failure inside a callback comes out as it went in.
    auto again = [&](auto, auto, auto) { sampler.step(theta, 0, x, decay); };
    CHECK(status_of([&] { sampler.sample(theta, x, again); }) == BESPOKE_ERROR_STATE);
    CHECK(status_of([&] { bespoke::theta::load("/does/not/exist"); }) == BESPOKE_ERROR_IO);
    CHECK(status_of([&] { sampler.step(theta, 77, x, decay); }) == BESPOKE_ERROR_INVALID);
#ifndef ON_DEVICE
    CHECK(status_of([&] { sampler.sample(theta, x, [](auto, auto, auto u) { u[0] = NAN; }); }) ==
          BESPOKE_ERROR_NON_FINITE);
#endif
    sampler.sample(theta, x, decay);
    CHECK(numbers[0] == 0.390625f && numbers[1] == 0.78125f);
}

static void views(const bespoke::theta &theta) {
    bespoke::sampler sampler(theta);
    // Every other number of a row, in doubles, out of place.
    double numbers[8] = {1, -9, 2, -9, 3, -9, 4, -9}, ends[4] = {};
    tensor_view<const double> x0(numbers, {2, 2}, {4, 2});
    tensor_view<double> x1(ends, {2, 2});
    sampler.sample(theta, x0, x1, decay);
    for (int i = 0; i < 4; i++) CHECK(std::fabs(ends[i] - (i + 1) * ends[0]) < 1e-12 && numbers[2 * i] == i + 1);
    static_assert(std::is_convertible_v<tensor_view<float>, tensor_view<const float>>, "what writes also reads");
    static_assert(!std::is_convertible_v<tensor_view<const float>, tensor_view<float>>, "and not the other way");
    bool refused = false;
    try {
        tensor_view<const float> wrong(x1.dl());
    } catch (const std::invalid_argument &) {
        refused = true;
    }
    CHECK(refused);
}

static void driving(const bespoke::theta &theta) {
    bespoke::sampler sampler(theta);
    float numbers[4] = {1.0f, 2.0f, 3.0f, 4.0f}, same[4], u[4], end[4];
    std::memcpy(same, numbers, sizeof same);
    sampler.start(tensor_view<float>(numbers, {2, 2}));
    CHECK(sampler.batch() == 2);
    unsigned evaluations = 0;
    while (auto asked = sampler.query<float>()) {
        tensor_view<float> velocity(u, {2, 2});
        decay(asked->t, asked->x, velocity);
        sampler.update(velocity);
        evaluations++;
    }
    CHECK(evaluations == theta.nfe() && sampler.row(1).evaluations == theta.nfe());
    sampler.finish(tensor_view<float>(end, {2, 2}));
    for (std::uint32_t step = 0; step < theta.steps(); step++)
        sampler.step(theta, step, tensor_view<float>(same, {2, 2}), decay);
    CHECK(std::memcmp(end, same, sizeof same) == 0);
    CHECK(theta.stage(0).t == 0.0);
}

// The same numbers from a device whose memory this program may not touch.
static void on_a_device(const bespoke::theta &theta) {
    static fake_device fake;
    const bespoke_device_ops ops = fake_ops(&fake);
    bespoke_sampler_options options{};
    options.device_ops = &ops;
    bespoke::sampler sampler(theta, options), near(theta);
    float numbers[4] = {1.0f, 2.0f, 3.0f, 4.0f}, end[4];
    void *memory = nullptr;
    CHECK(fake_allocate(&fake, sizeof numbers, &memory) == 0);
    fake_open(&fake, 1);
    std::memcpy(memory, numbers, sizeof numbers);
    fake_open(&fake, -1);
    const auto x = tensor_view<float>(static_cast<float *>(memory), {2, 2}).on(ops.device);
    sampler.sample(theta, x, [&](tensor_view<const float> t, tensor_view<const float> x, tensor_view<float> u) {
        CHECK(t.device().device_type == ops.device.device_type && x.device().device_id == 3);
        fake_open(&fake, 1);
        decay(t, x, u);
        fake_open(&fake, -1);
    });
    CHECK(sampler.finite() == std::vector<std::uint8_t>({1, 1}));
    fake_open(&fake, 1);
    std::memcpy(end, memory, sizeof end);
    fake_open(&fake, -1);
    near.sample(theta, tensor_view<float>(numbers, {2, 2}), decay);
    CHECK(std::memcmp(end, numbers, sizeof end) == 0 && end[0] == 0.390625f);
    CHECK(status_of([&] { near.start(x); }) == BESPOKE_ERROR_INVALID);
    CHECK(status_of([&] { sampler.start(tensor_view<float>(numbers, {2, 2})); }) == BESPOKE_ERROR_INVALID);
}

static void training(const std::string &card) {
    const auto model = bespoke::model::open(card);
    CHECK(model.info().ndim == 1);
    bespoke::train_callbacks callbacks;
    unsigned told = 0;
    callbacks.progress = [&](const bespoke_train_progress &progress) { return ++told, progress.iteration < 2; };
    callbacks.velocity = [&](const bespoke::call &call) {
        CHECK(call.classes() == nullptr && call.input("text") == nullptr);
        model.velocity(call.time(), call.x(), call.output());
    };
    const std::string config =
        "{\"field\": {\"shape\": [2]}, \"steps\": 2, \"pool\": 60, \"batch\": 10, \"validation\": 20}";
    const auto theta = bespoke::train(config, callbacks);
    CHECK(told == 3 && theta.nfe() == 4);

    callbacks.velocity = [](const bespoke::call &) { throw out_of_luck{7}; };
    CHECK(throws(7, [&] { bespoke::train(config, callbacks); }));
    // u_t(x) = -x
    callbacks.velocity = [](const bespoke::call &call) { decay(call.time(), call.x(), call.output()); };
    callbacks.progress = [](const bespoke_train_progress &) -> bool { throw out_of_luck{8}; };
    CHECK(throws(8, [&] { bespoke::train(config, callbacks); }));
    std::uint64_t backward = 0;
    callbacks.progress = [&](const bespoke_train_progress &progress) {
        return backward = progress.backward, backward == 0;
    };
    callbacks.vjp = [](const bespoke::call &call) {
        decay(call.time(), call.cotangent(), call.by_x());
        for (float &number : call.by_t()) number = 0.0f;
    };
    CHECK(bespoke::train(config, callbacks).nfe() == 4 && backward > 0);
    callbacks.vjp = [](const bespoke::call &) { throw out_of_luck{9}; };
    CHECK(throws(9, [&] { bespoke::train(config, callbacks); }));
}

static void solvers(const bespoke::theta &theta, const std::string &path) {
    const auto midpoint = bespoke::theta::solver("midpoint", 4, "fm-ot");
    bespoke::sampler sampler(theta);
    float ours[2] = {1.0f, 2.0f}, theirs[2] = {1.0f, 2.0f};
    sampler.sample(theta, tensor_view<float>(ours, {1, 2}), decay);
    sampler.sample(midpoint, tensor_view<float>(theirs, {1, 2}), decay);
    CHECK(std::fabs(ours[0] - theirs[0]) < 1e-6f && std::fabs(ours[1] - theirs[1]) < 1e-6f);
    CHECK(status_of([] { bespoke::theta::solver("eular", 4, "fm-ot"); }) == BESPOKE_ERROR_INVALID);

    auto ladder = bespoke::ladder::load(path);
    const auto best = ladder.best(7), finest = ladder.best(100);
    CHECK(best.nfe() == 4 && finest.nfe() == 8);
    CHECK(status_of([&] { ladder.best(3); }) == BESPOKE_ERROR_INVALID);
    CHECK(status_of([] { bespoke::ladder::load("/does/not/exist"); }) == BESPOKE_ERROR_IO);
}

static void rows(const bespoke::theta &theta) {
    bespoke::sampler sampler(theta);
    float numbers[2] = {1.0f, 2.0f}, end[2];
    tensor_view<float> x0(numbers, {1, 2});
    sampler.join(x0);
    sampler.join(bespoke::theta::solver("euler", 2, "fm-ot"), x0);
    CHECK(sampler.batch() == 2 && sampler.row(0).nfe == 4 && sampler.row(1).nfe == 2);
    sampler.leave(0);
    sampler.leave(0, tensor_view<float>(end, {1, 2}));
    CHECK(sampler.batch() == 0 && std::memcmp(end, numbers, sizeof end) == 0);
}

static void fields(const bespoke::theta &theta, const std::string &card) {
    const auto model = bespoke::model::open(card);
    bespoke::sampler sampler(theta);
    float one[2] = {0.5f, 0.25f}, other[2] = {0.5f, 0.25f};
    sampler.sample(theta, tensor_view<float>(one, {1, 2}), model.field());
    sampler.sample(theta, tensor_view<float>(other, {1, 2}), [&](auto t, auto x, auto u) { model.velocity(t, x, u); });
    CHECK(std::memcmp(one, other, sizeof one) == 0 && one[0] != 0.5f);
    // A ring without classes has none to give, and without a null class no guidance.
    auto sample = [&](auto field) { sampler.sample(theta, tensor_view<float>(one, {1, 2}), field); };
    const auto on = [](std::vector<std::int64_t> classes, std::vector<double> guidance_scale) {
        bespoke::condition condition;
        condition.classes = std::move(classes);
        condition.guidance_scale = std::move(guidance_scale);
        return condition;
    };
    CHECK(status_of([&] { sample(model.field(on({3}, {}))); }) == BESPOKE_ERROR_INVALID);
    CHECK(status_of([&] { sample(model.field(on({}, {2.0}))); }) == BESPOKE_ERROR_INVALID);
    CHECK(status_of([&] { sample(model.field(on({1, 2}, {}))); }) == BESPOKE_ERROR_INVALID);
    bool refused = false;
    try {
        bespoke::kept_condition uneven(on({1, 2}, {1.0}));
    } catch (const std::invalid_argument &) {
        refused = true;
    }
    CHECK(refused);
    // A field is copied with what it keeps.
    const auto field = model.field();
    const auto copy = field;
    float third[2] = {0.5f, 0.25f};
    sampler.sample(theta, tensor_view<float>(third, {1, 2}), copy);
    CHECK(std::memcmp(third, other, sizeof third) == 0);
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    const auto theta = bespoke::theta::load(arguments[1]);
    exceptions(theta);
    views(theta);
    driving(theta);
    on_a_device(theta);
    solvers(theta, arguments[2]);
    rows(theta);
    fields(theta, arguments[3]);
    training(arguments[3]);
    std::puts("ok");
    return 0;
}
