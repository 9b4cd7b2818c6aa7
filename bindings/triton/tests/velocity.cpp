// Velocities for the tests. `bespoke_velocity`: u = class / 10 + t - x / 2, one class NaN, two classes slow.
// `bespoke_conditioned`: u = mask * cond + mean(text) / 10 + weight * t - x / 2 for samples [frames, 3].
// `bespoke_text`: digits-text-onnx.json, which lies beside this library.

#include <dlfcn.h>

#include <chrono>
#include <cmath>
#include <string>
#include <thread>

#include "bespoke.hpp"

extern "C" std::int32_t bespoke_velocity(void *, const bespoke_call *call) {
    const DLTensor *x = call->x;
    const auto *times = static_cast<const float *>(call->time->data), *states = static_cast<const float *>(x->data);
    auto *velocities = static_cast<float *>(call->output->data);
    const std::int64_t *classes = bespoke::call(*call).classes();
    const std::int64_t elements = x->shape[1];
    bool slow = false;
    for (std::int64_t row = 0; row < x->shape[0]; row++) {
        const std::int64_t of_class = classes[row];
        if (of_class == 7) return 42;
        slow = slow || of_class == 8 || of_class == 9;
        for (std::int64_t i = row * elements; i < (row + 1) * elements; i++)
            velocities[i] = of_class == 3 && times[row] > 0.45f
                                ? NAN
                                : static_cast<float>(of_class) / 10.0f + times[row] - states[i] / 2.0f;
    }
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return 0;
}

extern "C" std::int32_t bespoke_conditioned(void *, const bespoke_call *given) {
    const bespoke::call call(*given);
    const auto x = call.x(), time = call.time();
    const auto u = call.output();
    const bespoke::tensor_view<const float> cond(*call.input("cond")), weight(*call.input("weight"));
    const bespoke::tensor_view<const std::int64_t> text(*call.input("text"));
    const auto *mask = static_cast<const std::uint8_t *>(call.input("mask")->data);
    const std::size_t rows = x.batch(), elements = x.size() / rows, tokens = text.size() / rows;
    for (std::size_t row = 0; row < rows; row++) {
        float mean = 0;
        for (std::size_t i = 0; i < tokens; i++) mean += static_cast<float>(text[row * tokens + i]);
        mean /= static_cast<float>(tokens);
        for (std::size_t i = row * elements; i < (row + 1) * elements; i++)
            u[i] = (mask[i / 3] != 0 ? cond[i] : 0.0F) + mean / 10.0F + weight[row] * time[row] - x[i] / 2.0F;
    }
    return 0;
}

static bespoke::model text_model() {
    Dl_info own{};
    if (dladdr(reinterpret_cast<const void *>(&bespoke_conditioned), &own) == 0) throw std::runtime_error("dladdr");
    const std::string library = own.dli_fname;
    return bespoke::model::open(library.substr(0, library.rfind('/') + 1) + "digits-text-onnx.json");
}

extern "C" std::int32_t bespoke_text(void *, const bespoke_call *given) try {
    static const bespoke::model model = text_model();
    const bespoke::call call(*given);
    bespoke::condition condition;
    condition.inputs.emplace("text", bespoke::any_view(*call.input("text")));
    // The samples' own shape.
    const auto rows = static_cast<std::int64_t>(call.x().batch());
    model.velocity(call.time(), bespoke::tensor_view<const float>(call.x().data(), {rows, 1, 8, 8}),
                   bespoke::tensor_view<float>(call.output().data(), {rows, 1, 8, 8}), condition);
    return 0;
} catch (const std::exception &) {
    return 1;
}
