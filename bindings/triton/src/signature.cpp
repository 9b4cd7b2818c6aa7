#include "signature.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace bespoke_triton {

namespace {

constexpr std::array<const char *, 7> own_inputs{"NOISE", "SEED", "COUNT", "GUIDANCE_SCALE", "NFE", "SOLVER", "CLASS"};

void check_name(const std::string &name, const char *kind) {
    if (std::find(own_inputs.begin(), own_inputs.end(), name) != own_inputs.end())
        throw invalid(std::string(kind) + " of the card", in_quotes(name),
                      "another name: the backend's own tensor has this one");
}

}  // namespace

shape::shape(const std::int64_t *dims, const char *const *names, std::size_t rank) : dims_(dims, dims + rank) {
    names_.reserve(rank);
    for (std::size_t i = 0; i < rank; i++) names_.emplace_back(names != nullptr && names[i] != nullptr ? names[i] : "");
}

bool shape::named() const noexcept {
    return std::any_of(names_.begin(), names_.end(), [](const std::string &name) { return !name.empty(); });
}

void shape::learn(const std::string &tensor, const std::vector<std::int64_t> &given, sizes &known) const {
    const auto wrong = [&](const std::string &expected) {
        return invalid(tensor + ".shape", shape_text(given) + " without the rows", expected);
    };
    // A number is a column of one.
    if (dims_.empty() && given == std::vector<std::int64_t>{1}) return;
    bool fits = given.size() == dims_.size();
    for (std::size_t i = 0; fits && i < dims_.size(); i++)
        fits = names_[i].empty() ? given[i] == dims_[i] : given[i] > 0;
    if (!fits) throw wrong(shape_text(dims_.empty() ? std::vector<std::int64_t>{1} : dims_));
    for (std::size_t i = 0; i < dims_.size(); i++) {
        if (names_[i].empty()) continue;
        const auto [at, fresh] = known.emplace(names_[i], given[i]);
        if (!fresh && at->second != given[i])
            throw wrong(names_[i] + " " + std::to_string(at->second) + ", as what was given before it");
    }
}

std::vector<std::int64_t> shape::resolve(const sizes &known) const {
    std::vector<std::int64_t> dims = dims_;
    for (std::size_t i = 0; i < dims.size(); i++) {
        if (names_[i].empty()) continue;
        const auto found = known.find(names_[i]);
        if (found == known.end())
            throw failure(TRITONSERVER_ERROR_INVALID_ARG, "size " + names_[i] +
                                                              " is not known: give NOISE, an input that shows it, or "
                                                              "a request parameter of this name");
        dims[i] = found->second;
    }
    return dims;
}

signature::signature(const bespoke_model_properties &model)
    : sample_(model.shape, model.shape_names, model.ndim), classes_(model.classes) {
    // The C interface lists what the network takes; the card says which of it is the guidance scale.
    const auto card = nlohmann::json::parse(model.card);
    const auto guidance = card.value("guidance", nlohmann::json::object());
    std::string scale_input;
    if (guidance.contains("scale_input") && guidance["scale_input"].is_string()) scale_input = guidance["scale_input"];
    scale_is_input_ = !scale_input.empty();
    for (std::uint32_t i = 0; i < model.input_count; i++) {
        const bespoke_input_properties &input = model.inputs[i];
        const std::string name = input.name;
        if (name == scale_input || (name == "class" && classes_ > 0)) continue;
        check_name(name, "an input");
        inputs_.push_back(
            {name, input.dtype, type_of(name, input.dtype), {input.shape, input.shape_names, input.ndim}});
    }
    for (std::uint32_t i = 0; i < model.scale_count; i++) {
        const std::string name = model.scales[i];
        if (name == "guidance_scale") {
            guided_ = true;
            continue;
        }
        check_name(name, "a scale");
        const auto same = [&](const network_input &input) { return input.name == name; };
        if (std::any_of(inputs_.begin(), inputs_.end(), same))
            throw invalid("a scale of the card", in_quotes(name), "another name: an input has this one");
        scales_.push_back(name);
    }
}

bool signature::sized() const noexcept {
    return sample_.named() ||
           std::any_of(inputs_.begin(), inputs_.end(), [](const network_input &input) { return input.shape.named(); });
}

bool signature::has_size(const std::string &name) const {
    const auto has = [&](const bespoke_triton::shape &shape) {
        return std::find(shape.names().begin(), shape.names().end(), name) != shape.names().end();
    };
    return !name.empty() && (has(sample_) || std::any_of(inputs_.begin(), inputs_.end(),
                                                         [&](const network_input &input) { return has(input.shape); }));
}

TRITONSERVER_DataType type_of(const std::string &name, const DLDataType &dtype) {
    const std::pair<std::uint8_t, std::uint8_t> kind{dtype.code, dtype.bits};
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLFloat, 64}) return TRITONSERVER_TYPE_FP64;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLFloat, 32}) return TRITONSERVER_TYPE_FP32;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLFloat, 16}) return TRITONSERVER_TYPE_FP16;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLBfloat, 16}) return TRITONSERVER_TYPE_BF16;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLInt, 64}) return TRITONSERVER_TYPE_INT64;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLInt, 32}) return TRITONSERVER_TYPE_INT32;
    if (kind == std::pair<std::uint8_t, std::uint8_t>{kDLBool, 8}) return TRITONSERVER_TYPE_BOOL;
    throw failure(TRITONSERVER_ERROR_UNSUPPORTED, "input " + name + " of the card has a dtype that Triton has not");
}

std::size_t bytes_of(const DLDataType &dtype) { return dtype.bits / 8U; }

std::size_t count_of(const std::vector<std::int64_t> &dims, std::size_t limit) {
    std::size_t count = 1;
    for (const std::int64_t size : dims) {
        if (size < 1 || static_cast<std::uint64_t>(size) > limit / count) return limit + 1;
        count *= static_cast<std::size_t>(size);
    }
    return count;
}

}  // namespace bespoke_triton
