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
    /// SOLVER as it is written: NAME, NAME@NFE or NAME@NFE:GRID.
    struct reference {
        std::string name, grid;
        std::optional<std::int64_t> nfe;
    };

    static reference parse(const std::string &text);
    void add(const std::string &file, const bespoke_model_properties &model);
    std::shared_ptr<const solver> published(const reference &wanted);

    std::string scheduler_;
    std::string default_;
    std::uint32_t max_nfe_;
    /// Of each theta or ladder file, its thetas by nfe.
    std::map<std::string, std::map<std::uint32_t, std::shared_ptr<const solver>>> files_;
    /// Published solvers that were asked for.
    solver_cache made_;
};

}  // namespace bespoke_triton

#endif
