#include "settings.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>

namespace bespoke_triton {

namespace {

using nlohmann::json;

/// Where the configuration leaves it open: requests that are put together, at most.
constexpr int default_max_batch_size = 64;

/// The parameters of a configuration; what nobody takes out is unknown.
class parameters {
public:
    explicit parameters(const json &config) {
        if (!config.contains("parameters")) return;
        for (const auto &[key, value] : config.at("parameters").items()) {
            values_[key] = value.value("string_value", "");
        }
    }

    std::optional<std::string> take(const std::string &key) {
        const auto found = values_.find(key);
        if (found == values_.end()) return std::nullopt;
        std::string value = found->second;
        values_.erase(found);
        if (value.empty()) throw invalid("parameter " + key, "empty", "a text");
        return value;
    }

    void take(const std::string &key, std::string &into) {
        if (auto value = take(key)) into = *value;
    }

    void take(const std::string &key, std::uint32_t &into, std::uint32_t least, std::uint32_t most) {
        const auto value = take(key);
        if (!value) return;
        char *end = nullptr;
        errno = 0;
        const long long number = std::strtoll(value->c_str(), &end, 10);
        if (errno != 0 || *end != '\0' || number < least || number > most)
            throw invalid("parameter " + key, '"' + *value + '"',
                          "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
        into = static_cast<std::uint32_t>(number);
    }

    void check_empty() const {
        if (!values_.empty())
            throw failure(TRITONSERVER_ERROR_INVALID_ARG, "parameter " + values_.begin()->first + " is unknown");
    }

private:
    std::map<std::string, std::string> values_;
};

std::vector<std::string> split(const std::string &text) {
    std::vector<std::string> parts;
    for (std::size_t start = 0; start <= text.size();) {
        const std::size_t end = std::min(text.find(',', start), text.size());
        const std::size_t first = text.find_first_not_of(" \t\n", start);
        const std::size_t last = text.find_last_not_of(" \t\n", end == 0 ? 0 : end - 1);
        if (first < end && last != std::string::npos) parts.push_back(text.substr(first, last - first + 1));
        start = end + 1;
    }
    return parts;
}

std::string locate(const std::string &file, const std::string &repository, std::uint64_t version) {
    namespace fs = std::filesystem;
    const fs::path given(file), folder(repository);
    if (given.is_absolute()) return file;
    const fs::path versioned = folder / std::to_string(version) / given;
    std::error_code ignored;
    return (fs::exists(versioned, ignored) ? versioned : folder / given).string();
}

/// Triton writes 64-bit numbers as numbers or as texts.
std::int64_t whole(const json &value) {
    return value.is_string() ? std::stoll(value.get<std::string>()) : value.get<std::int64_t>();
}

std::vector<std::int64_t> dims_of(const json &tensor) {
    std::vector<std::int64_t> dims;
    for (const json &size : tensor.value("dims", json::array())) dims.push_back(whole(size));
    return dims;
}

/// A tensor of the interface. Under batching Triton adds the batch in front.
struct tensor {
    std::string name, type;
    std::vector<std::int64_t> dims;
    /// Whether a request may go without.
    bool optional = true;
};

std::vector<tensor> inputs_of(const signature &model) {
    const std::vector<std::int64_t> one{1};
    std::vector<tensor> inputs{
        {"NOISE", "TYPE_FP32", model.sample().dims()}, {"SEED", "TYPE_INT64", one}, {"COUNT", "TYPE_INT64", one},
        {"GUIDANCE_SCALE", "TYPE_FP32", one},          {"NFE", "TYPE_INT64", one},  {"SOLVER", "TYPE_STRING", one}};
    if (model.classes() > 0) inputs.push_back({"CLASS", "TYPE_INT64", one});
    for (const network_input &input : model.inputs()) {
        const std::string type = std::string("TYPE_") + TRITONSERVER_DataTypeString(input.type);
        const auto &dims = input.shape.dims();
        inputs.push_back({input.name, type, dims.empty() ? one : dims, false});
    }
    for (const std::string &scale : model.scales()) inputs.push_back({scale, "TYPE_FP32", one});
    return inputs;
}

std::vector<tensor> outputs_of(const signature &model) { return {{"SAMPLE", "TYPE_FP32", model.sample().dims()}}; }

std::vector<std::int64_t> dims_under(const tensor &tensor, bool batched) {
    std::vector<std::int64_t> dims = tensor.dims;
    if (!batched) dims.insert(dims.begin(), -1);
    return dims;
}

bool batched(const json &config) { return config.value("max_batch_size", 0) > 0; }

bool absent(const json &config, const char *key) { return !config.contains(key) || config.at(key).empty(); }

void check_tensor(const json &given, const std::vector<tensor> &known, bool batched, const std::string &kind) {
    const std::string name = given.value("name", "");
    const auto same = [&](const tensor &tensor) { return tensor.name == name; };
    const auto found = std::find_if(known.begin(), known.end(), same);
    if (found == known.end()) {
        std::string names;
        for (const tensor &tensor : known) names += (names.empty() ? "" : ", ") + tensor.name;
        throw invalid(kind, '"' + name + '"', "one of " + names);
    }
    const std::string type = given.value("data_type", "");
    if (type != found->type) throw invalid(kind + ' ' + name + ".data_type", type, found->type);
    const auto expected = dims_under(*found, batched), dims = dims_of(given);
    if (dims != expected) throw invalid(kind + ' ' + name + ".dims", shape_text(dims), shape_text(expected));
    if (kind == "input" && found->optional && !given.value("optional", false))
        throw invalid("input " + name + ".optional", "false", "true");
}

}  // namespace

settings read_settings(const json &config, const std::string &repository, std::uint64_t version) {
    settings own;
    own.name = config.value("name", "");
    own.version = version;
    own.batched = batched(config);
    own.decoupled =
        config.contains("model_transaction_policy") && config.at("model_transaction_policy").value("decoupled", false);
    if (config.contains("sequence_batching"))
        throw failure(TRITONSERVER_ERROR_UNSUPPORTED,
                      "sequence_batching is given, but requests here have no sequences");

    parameters given(config);
    const auto file = [&](const std::string &path) { return locate(path, repository, version); };
    const auto card = given.take("card");
    if (!card) throw failure(TRITONSERVER_ERROR_INVALID_ARG, "parameter card is missing: the path of a model card");
    own.card = file(*card);
    if (const auto thetas = given.take("thetas")) {
        for (const std::string &theta : split(*thetas)) own.thetas.push_back(file(theta));
    }
    given.take("solver", own.solver);
    if (own.thetas.empty() && own.solver.empty())
        throw failure(TRITONSERVER_ERROR_INVALID_ARG,
                      "parameters thetas and solver are missing: name theta files, or a solver as in midpoint@10");
    if (const auto scale = given.take("guidance_scale")) {
        char *end = nullptr;
        own.guidance_scale = std::strtod(scale->c_str(), &end);
        if (*end != '\0' || !std::isfinite(own.guidance_scale))
            throw invalid("parameter guidance_scale", '"' + *scale + '"', "a finite number");
    }

    given.take("velocity_model", own.velocity_model);
    if (const std::size_t colon = own.velocity_model.rfind(':'); colon != std::string::npos) {
        const std::string number = own.velocity_model.substr(colon + 1);
        char *end = nullptr;
        own.velocity_model_version = std::strtoll(number.c_str(), &end, 10);
        if (number.empty() || *end != '\0' || own.velocity_model_version < 1)
            throw invalid("parameter velocity_model", '"' + own.velocity_model + '"', "NAME or NAME:VERSION");
        own.velocity_model.resize(colon);
    }
    if (const auto inputs = given.take("velocity_inputs")) {
        const auto names = split(*inputs);
        if (names.size() < 2 || names.size() > 3)
            throw invalid("parameter velocity_inputs", '"' + *inputs + '"',
                          "names of states, times and classes: X,T,CLASS");
        own.velocity_x = names[0];
        own.velocity_t = names[1];
        if (names.size() == 3) own.velocity_class = names[2];
    }
    given.take("velocity_output", own.velocity_output);
    if (const auto library = given.take("velocity_library")) own.velocity_library = file(*library);
    given.take("velocity_symbol", own.velocity_symbol);
    if (!own.velocity_model.empty() && !own.velocity_library.empty())
        throw failure(TRITONSERVER_ERROR_INVALID_ARG,
                      "parameters velocity_model and velocity_library are both given, expected one of them");

    if (const auto batching = given.take("batching")) {
        if (*batching != "continuous" && *batching != "whole")
            throw invalid("parameter batching", '"' + *batching + '"', "continuous or whole");
        own.continuous = *batching == "continuous";
    }
    own.max_rows = static_cast<std::uint32_t>(std::max(config.value("max_batch_size", 0), default_max_batch_size));
    given.take("max_rows", own.max_rows, 1, 1U << 20U);
    given.take("max_numbers", own.max_numbers, 1, UINT32_MAX);
    given.take("max_count", own.max_count, 1, 1U << 20U);
    given.take("max_nfe", own.max_nfe, 1, 4000);
    given.take("preview_every", own.preview_every, 0, 4000);
    given.check_empty();
    return own;
}

bool complete(json &config, const signature &model) {
    const json before = config;
    const bool untouched = absent(config, "input") && absent(config, "output");
    if (untouched && !batched(config)) config["max_batch_size"] = default_max_batch_size;
    if (untouched && absent(config, "dynamic_batching") && absent(config, "sequence_batching"))
        config["dynamic_batching"] = json::object();
    const bool with_batch = batched(config);
    const auto describe = [&](const tensor &tensor) {
        return json{{"name", tensor.name}, {"data_type", tensor.type}, {"dims", dims_under(tensor, with_batch)}};
    };
    if (absent(config, "input")) {
        config["input"] = json::array();
        for (const tensor &tensor : inputs_of(model)) {
            config["input"].push_back(describe(tensor));
            config["input"].back()["optional"] = tensor.optional;
            // Requests of several sizes come in one Execute; they are told apart here.
            const bool sized = std::find(tensor.dims.begin(), tensor.dims.end(), -1) != tensor.dims.end();
            if (with_batch && sized) config["input"].back()["allow_ragged_batch"] = true;
        }
    }
    if (absent(config, "output")) {
        config["output"] = json::array();
        for (const tensor &tensor : outputs_of(model)) config["output"].push_back(describe(tensor));
    }
    return config != before;
}

void check_tensors(const json &config, const signature &model) {
    const bool with_batch = batched(config);
    const auto inputs = inputs_of(model), outputs = outputs_of(model);
    if (absent(config, "output")) throw failure(TRITONSERVER_ERROR_INVALID_ARG, "output SAMPLE is missing");
    for (const json &tensor : config.value("input", json::array())) check_tensor(tensor, inputs, with_batch, "input");
    for (const json &tensor : config.at("output")) check_tensor(tensor, outputs, with_batch, "output");
}

}  // namespace bespoke_triton
