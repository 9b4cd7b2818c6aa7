// A model's config.pbtxt: what this backend reads from it, completes and checks.

#ifndef BESPOKE_TRITON_SETTINGS_HPP
#define BESPOKE_TRITON_SETTINGS_HPP

#include <cstdint>
#include <string>
#include <vector>

#include "signature.hpp"
#include "triton.hpp"

namespace bespoke_triton {

/// The parameters of a model, with paths resolved.
struct settings {
    std::string name;
    std::uint64_t version = 0;

    std::string card;
    /// Theta and ladder files that requests may name.
    std::vector<std::string> thetas;
    /// The solver of requests that name none; empty is the first of `thetas`.
    std::string solver;
    double guidance_scale = 1.0;

    /// Another model of the server that is the network; empty for none.
    std::string velocity_model;
    std::int64_t velocity_model_version = -1;
    /// Its inputs: states, times, classes; and its output.
    std::string velocity_x = "X", velocity_t = "T", velocity_class = "CLASS", velocity_output = "U";
    /// A shared library that has the velocity; empty for none.
    std::string velocity_library;
    std::string velocity_symbol = "bespoke_velocity";

    /// Whether requests join between evaluations, or wait until the present batch is done.
    bool continuous = true;
    /// Samples that are evaluated together, at most.
    std::uint32_t max_rows = 64;
    /// Numbers that are evaluated together, at most, where sizes differ: those of the states and of the inputs. A
    /// request's samples have at most so many, too.
    std::uint32_t max_numbers = 1U << 24U;
    /// Samples of one request, at most.
    std::uint32_t max_count = 1024;
    /// Evaluations of a published solver, at most.
    std::uint32_t max_nfe = 1000;
    /// Evaluations between two intermediate predictions of a decoupled model; 0 sends none.
    std::uint32_t preview_every = 1;

    bool decoupled = false;
    bool batched = true;
};

/// Reads `config`; files are looked for in the model's version folder, then in the model's own.
settings read_settings(const nlohmann::json &config, const std::string &repository, std::uint64_t version);

/// Adds what `config` leaves out: tensors, batching. True where something was added.
bool complete(nlohmann::json &config, const signature &model);

/// Whether the tensors of `config` are those of the model.
void check_tensors(const nlohmann::json &config, const signature &model);

}  // namespace bespoke_triton

#endif
