#include "request.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "inputs.hpp"

namespace bespoke_triton {

namespace {

void check_class(std::int64_t of_class, const model &model) {
    const bool known =
        (0 <= of_class && of_class < model.classes()) || (of_class >= 0 && of_class == model.null_class());
    if (!known) throw invalid("CLASS", std::to_string(of_class), "0 to " + std::to_string(model.classes() - 1));
}

void check_scale(const std::string &name, double scale) {
    if (!std::isfinite(scale)) throw invalid(name, std::to_string(scale), "a finite number");
}

/// Of each row of the request, its number of samples.
std::vector<std::int64_t> counts_of(const inputs &given, std::uint32_t most) {
    std::vector<std::int64_t> counts = given.integers("COUNT").value_or(std::vector<std::int64_t>(given.rows(), 1));
    std::int64_t total = 0;
    for (const std::int64_t count : counts) {
        if (count < 1 || count > most) throw invalid("COUNT", std::to_string(count), "1 to " + std::to_string(most));
        total += count;
    }
    if (total > most) throw invalid("COUNT", std::to_string(total) + " in all", "1 to " + std::to_string(most));
    return counts;
}

}  // namespace

request::request(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *handle,
                 std::shared_ptr<const device> place)
    : states(std::move(place)), instance_(instance), handle_(handle), started_ns_(now_ns()) {
    log_error(TRITONBACKEND_ResponseFactoryNew(&factory_, handle), "making a response factory");
}

request::~request() {
    if (handle_ != nullptr) fail(TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "the request was given up"));
}

void request::read(model &model) {
    if (factory_ == nullptr) throw failure(TRITONSERVER_ERROR_INTERNAL, "Triton gave no response factory");
    decoupled_ = model.settings().decoupled;
    if (decoupled_) preview_every = model.settings().preview_every;
    read_parameters(model.signature());
    const inputs given(handle_, states.place());
    read_sizes(given, model);
    read_columns(given, model.signature());
    read_samples(given, model);
}

void request::read_parameters(const signature &signature) {
    std::uint32_t count = 0;
    check(TRITONBACKEND_RequestParameterCount(handle_, &count));
    for (std::uint32_t i = 0; i < count; i++) {
        const char *key = nullptr;
        TRITONSERVER_ParameterType type{};
        const void *value = nullptr;
        check(TRITONBACKEND_RequestParameter(handle_, i, &key, &type, &value));
        const std::int64_t number = type == TRITONSERVER_PARAMETER_INT ? *static_cast<const std::int64_t *>(value) : -1;
        const std::string name = std::string("parameter ") + key;
        if (signature.has_size(key)) {
            if (number < 1 || number > UINT32_MAX) throw invalid(name, "no such number", "a size of at least 1");
            sizes.emplace(key, number);
        }
        if (std::strcmp(key, "preview_every") != 0) continue;
        if (number < 0 || number > UINT32_MAX) throw invalid(name, "no such number", "a whole number, 0 for none");
        if (!decoupled_ && number != 0)
            throw failure(TRITONSERVER_ERROR_UNSUPPORTED,
                          name + ": the model is not decoupled, and sends one response");
        preview_every = static_cast<std::uint32_t>(number);
    }
}

/// What the request's tensors say of the sizes that have a name; shapes follow from them.
void request::read_sizes(const inputs &given, const model &model) {
    const signature &signature = model.signature();
    if (const auto noise = given.shape("NOISE")) signature.sample().learn("NOISE", *noise, sizes);
    for (const network_input &input : signature.inputs()) {
        const auto found = given.shape(input.name);
        if (!found) throw failure(TRITONSERVER_ERROR_INVALID_ARG, input.name + " is missing: the network takes it");
        input.shape.learn(input.name, *found, sizes);
    }
    shape = signature.sample().resolve(sizes);
    const std::size_t most = signature.sized() ? model.settings().max_numbers : SIZE_MAX / sizeof(double);
    elements = count_of(shape, most);
    numbers = elements;
    for (const network_input &input : signature.inputs()) {
        const std::size_t own = count_of(input.shape.resolve(sizes), most);
        numbers = own > most - std::min(most, numbers) ? most + 1 : numbers + own;
    }
    if (numbers > most)
        throw invalid("a sample's size", "more than " + std::to_string(most) + " numbers with its inputs",
                      "at most so many (max_numbers)");
}

void request::read_columns(const inputs &given, const signature &signature) {
    for (const network_input &input : signature.inputs()) {
        column own;
        own.shape = input.shape.resolve(sizes);
        const auto expected = own.shape.empty() ? std::vector<std::int64_t>{1} : own.shape;
        own.row_bytes = count_of(own.shape, SIZE_MAX / sizeof(double)) * bytes_of(input.dtype);
        auto bytes = given.bytes(input.name, input.type, expected);
        if (bytes) own.bytes = std::move(*bytes);
        if (own.bytes.size() != given.rows() * own.row_bytes)
            throw invalid(input.name, std::to_string(own.bytes.size()) + " bytes",
                          std::to_string(given.rows() * own.row_bytes));
        columns.push_back(std::move(own));
    }
}

void request::read_samples(const inputs &given, model &model) {
    const settings &settings = model.settings();
    const signature &signature = model.signature();
    if (given.has("NOISE") && (given.has("SEED") || given.has("COUNT")))
        throw failure(TRITONSERVER_ERROR_INVALID_ARG, "NOISE and SEED or COUNT are given, expected one or the other");
    const auto nfes = given.integers("NFE"), classes = given.integers("CLASS");
    const auto guidance_scales = given.floats("GUIDANCE_SCALE", {1});
    const auto names = given.texts("SOLVER");
    const auto counts = counts_of(given, settings.max_count);
    std::vector<std::optional<std::vector<float>>> scales;
    for (const std::string &scale : signature.scales()) scales.push_back(given.floats(scale, {1}));

    for (std::size_t row = 0; row < given.rows(); row++) {
        sample own;
        own.row = row;
        own.by = model.solvers().find(names ? std::optional((*names)[row]) : std::nullopt,
                                      nfes ? std::optional((*nfes)[row]) : std::nullopt);
        own.guidance_scale = guidance_scales ? (*guidance_scales)[row] : settings.guidance_scale;
        check_scale("GUIDANCE_SCALE", own.guidance_scale);
        if (own.guidance_scale != 1.0 && !signature.guided())
            throw invalid("GUIDANCE_SCALE", std::to_string(own.guidance_scale),
                          "1: the model has no null_class, nor an input with a null, to guide from");
        for (std::size_t k = 0; k < scales.size(); k++) {
            const auto &values = scales[k];
            own.scales.push_back(values ? (*values)[row] : 1.0);
            check_scale(signature.scales()[k], own.scales.back());
        }
        if (classes) check_class((*classes)[row], model);
        for (std::int64_t i = 0; i < counts[row]; i++) {
            // Where no class is named, sample i gets class i mod classes, as on the command line.
            if (model.classes() > 0)
                own.of_class = classes ? (*classes)[row] : static_cast<std::int64_t>(samples.size()) % model.classes();
            samples.push_back(own);
        }
    }
    if (signature.sized() && numbers > settings.max_numbers / samples.size())
        throw invalid("COUNT", std::to_string(samples.size()) + " samples of " + std::to_string(numbers) + " numbers",
                      "at most " + std::to_string(settings.max_numbers) + " numbers in all (max_numbers)");
    read_states(given, counts, model);
}

void request::read_states(const inputs &given, const std::vector<std::int64_t> &counts, const model &model) {
    states.resize(samples.size() * elements);
    if (given.has("NOISE")) {
        read_noise(given);
    } else {
        draw_noise(given, counts);
    }
    if (model.initial_scale() == 1.0) return;
    if (const device *place = states.place()) {
        constexpr DLDataType type = bespoke::dtype_of<float>::value;
        place->convert(states.data(), type, states.data(), type, states.size(), model.initial_scale());
        place->wait();
    } else {
        std::transform(states.data(), states.data() + states.size(), states.data(),
                       [&](float number) { return static_cast<float>(number * model.initial_scale()); });
    }
}

void request::read_noise(const inputs &given) {
    given.floats_into(states.data(), "NOISE", shape);
    const float *numbers = states.data();
    std::size_t before = 0, count = states.size();
    std::vector<float> row;
    if (const device *place = states.place()) {
        const std::size_t bad = place->first_infinite(numbers, samples.size(), elements);
        before = bad * elements;
        row.resize(bad < samples.size() ? elements : 0);
        count = row.size();
        if (count > 0) place->copy(row.data(), numbers + before, count * sizeof(float));
        numbers = row.data();
    }
    const float *bad = std::find_if(numbers, numbers + count, [](float v) { return !std::isfinite(v); });
    if (bad == numbers + count) return;
    const std::size_t at = before + static_cast<std::size_t>(bad - numbers);
    throw invalid("NOISE", std::to_string(*bad) + " at number " + std::to_string(at), "finite numbers");
}

/// The noise of the program's `--seed`, which is drawn in host memory.
void request::draw_noise(const inputs &given, const std::vector<std::int64_t> &counts) {
    const auto seeds = given.integers("SEED");
    const device *place = states.place();
    std::vector<float> drawn(place != nullptr ? states.size() : 0);
    float *next = place != nullptr ? drawn.data() : states.data();
    for (std::size_t row = 0; row < given.rows(); row++) {
        std::vector<std::int64_t> batch = shape;
        batch.insert(batch.begin(), counts[row]);
        const auto seed = static_cast<std::uint64_t>(seeds ? (*seeds)[row] : 0);
        bespoke::noise(seed, 0, bespoke::tensor_view<float>(next, batch.data(), batch.size()));
        next += static_cast<std::size_t>(counts[row]) * elements;
    }
    if (place != nullptr) place->copy(states.data(), drawn.data(), drawn.size() * sizeof(float));
}

bool request::finite() const {
    if (const device *place = states.place())
        return place->first_infinite(states.data(), samples.size(), elements) == samples.size();
    return std::all_of(states.data(), states.data() + states.size(), [](float v) { return std::isfinite(v); });
}

bool request::cancelled() const {
    bool is = false;
    log_error(TRITONBACKEND_ResponseFactoryIsCancelled(factory_, &is), "asking for a cancellation");
    return is;
}

TRITONBACKEND_Response *request::respond(const float *values, bool final) {
    TRITONBACKEND_Response *response = nullptr;
    check(TRITONBACKEND_ResponseNewFromFactory(&response, factory_));
    try {
        std::uint32_t nfe = 0;
        std::string names;
        for (const sample &sample : samples) {
            nfe = std::max(nfe, sample.by->nfe);
            const std::string &name = sample.by->name;
            if ((", " + names + ", ").find(", " + name + ", ") == std::string::npos)
                names += (names.empty() ? "" : ", ") + name;
        }
        check(TRITONBACKEND_ResponseSetIntParameter(response, "nfe", nfe));
        check(TRITONBACKEND_ResponseSetStringParameter(response, "solver", names.c_str()));
        check(TRITONBACKEND_ResponseSetIntParameter(response, "network_us",
                                                    static_cast<std::int64_t>(network_ns / 1000)));
        check(
            TRITONBACKEND_ResponseSetIntParameter(response, "solver_us", static_cast<std::int64_t>(solver_ns / 1000)));
        if (decoupled_) {
            check(TRITONBACKEND_ResponseSetIntParameter(response, "evaluations", calls));
            check(TRITONBACKEND_ResponseSetBoolParameter(response, "final", final));
        }
        TRITONBACKEND_Output *output = nullptr;
        std::vector<std::int64_t> batch = shape;
        batch.insert(batch.begin(), static_cast<std::int64_t>(samples.size()));
        check(TRITONBACKEND_ResponseOutput(response, &output, "SAMPLE", TRITONSERVER_TYPE_FP32, batch.data(),
                                           static_cast<std::uint32_t>(batch.size())));
        void *buffer = nullptr;
        const device *place = states.place();
        TRITONSERVER_MemoryType memory = place != nullptr ? TRITONSERVER_MEMORY_GPU : TRITONSERVER_MEMORY_CPU;
        std::int64_t memory_id = place != nullptr ? place->index() : 0;
        const std::size_t bytes = states.size() * sizeof(float);
        check(TRITONBACKEND_OutputBuffer(output, &buffer, bytes, &memory, &memory_id));
        if (memory == TRITONSERVER_MEMORY_GPU && place == nullptr)
            throw failure(TRITONSERVER_ERROR_UNSUPPORTED, "SAMPLE is wanted in GPU memory, expected host memory");
        if (place != nullptr) {
            place->copy(buffer, values, bytes);
        } else {
            std::memcpy(buffer, values, bytes);
        }
        return response;
    } catch (...) {
        log_error(TRITONBACKEND_ResponseDelete(response), "freeing a response");
        throw;
    }
}

void request::send_preview(const float *predictions) {
    check(TRITONBACKEND_ResponseSend(respond(predictions, false), 0, nullptr));
}

void request::finish() {
    try {
        TRITONBACKEND_Response *response = respond(states.data(), true);
        log_error(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, nullptr),
                  "sending a response");
    } catch (...) {
        fail(current_error());
        return;
    }
    let_go(true);
}

void request::fail(TRITONSERVER_Error *error) noexcept {
    TRITONBACKEND_Response *response = nullptr;
    TRITONSERVER_Error *refused =
        factory_ != nullptr ? TRITONBACKEND_ResponseNewFromFactory(&response, factory_)
                            : TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "there is no response factory");
    if (refused == nullptr) refused = TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error);
    log_error(refused, "sending an error");
    TRITONSERVER_ErrorDelete(error);
    let_go(false);
}

void request::let_go(bool success) noexcept {
    const std::uint64_t end = now_ns();
    const std::uint64_t compute_start = first_call_ns != 0 ? first_call_ns : end;
    const std::uint64_t compute_end = last_call_ns != 0 ? last_call_ns : end;
    log_error(TRITONBACKEND_ModelInstanceReportStatistics(instance_, handle_, success, started_ns_, compute_start,
                                                          compute_end, end),
              "reporting statistics");
    if (factory_ != nullptr) log_error(TRITONBACKEND_ResponseFactoryDelete(factory_), "freeing a response factory");
    log_error(TRITONBACKEND_RequestRelease(handle_, TRITONSERVER_REQUEST_RELEASE_ALL), "releasing a request");
    handle_ = nullptr;
    factory_ = nullptr;
}

}  // namespace bespoke_triton
