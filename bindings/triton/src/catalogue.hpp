// The solvers that a model offers: thetas by the name of their file, and the published ones.

#ifndef BESPOKE_TRITON_CATALOGUE_HPP
#define BESPOKE_TRITON_CATALOGUE_HPP

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cache.hpp"
#include "settings.hpp"

namespace bespoke_triton {

/// Any thread.
class catalogue {
public:
    /// Opens the files. `model` is what the card says, which published solvers depend on.
    catalogue(const settings &settings, const bespoke_model_properties &model);

    /// The solver of a request that gives SOLVER, NFE, both or none.
    std::shared_ptr<const solver> find(const std::optional<std::string> &name, std::optional<std::int64_t> nfe);

private:
    bespoke::reference parse(const std::string &text) const;
    void add(const std::string &file, const bespoke_model_properties &model);
    /// Of a file of `thetas`, its theta of the greatest nfe that is at most so much.
    std::shared_ptr<const solver> learned(const std::string &name, std::optional<std::int64_t> nfe_at_most) const;
    std::shared_ptr<const solver> published(const std::string &name, std::optional<std::int64_t> count);

    std::string scheduler_;
    std::string default_;
    std::uint32_t max_nfe_;
    /// Of the theta and ladder files, in the order given.
    std::vector<std::string> names_;
    /// Of each of them, its thetas by nfe.
    std::map<std::string, std::map<std::uint32_t, std::shared_ptr<const solver>>> files_;
    /// Published solvers that were asked for.
    solver_cache made_;
};

}  // namespace bespoke_triton

#endif
