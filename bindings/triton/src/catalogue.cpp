#include "catalogue.hpp"

#include <algorithm>
#include <filesystem>
#include <iterator>

namespace bespoke_triton {

namespace {

/// Memory of the published solvers that are kept; a model's clients ask for few, of some kilobytes each.
constexpr std::size_t made_bytes_at_most = std::size_t{16} << 20U;

/// A SOLVER is no longer than this: a grid of a thousand times.
constexpr std::size_t solver_text_at_most = std::size_t{32} << 10U;

/// Errors where `text` is nothing that a client can have meant.
void check_text(const std::string &text) {
    if (text.size() > solver_text_at_most)
        throw invalid("SOLVER", in_quotes(text), "at most " + std::to_string(solver_text_at_most) + " bytes");
    if (!is_utf8(text)) throw invalid("SOLVER", in_quotes(text), "UTF-8");
    if (text.find('\0') != std::string::npos) throw invalid("SOLVER", in_quotes(text), "text without NUL");
}

}  // namespace

catalogue::catalogue(const settings &settings, const bespoke_model_properties &model)
    : max_nfe_(settings.max_nfe), made_(made_bytes_at_most) {
    const auto card = nlohmann::json::parse(model.card);
    nlohmann::json scheduler = card.at("scheduler");
    if (card.contains("time")) scheduler["end"] = card.at("time").value("end", 1.0);
    scheduler_ = scheduler.dump();

    for (const std::string &file : settings.thetas) add(file, model);
    default_ = settings.solver;
    if (default_.empty()) default_ = std::filesystem::path(settings.thetas.front()).stem().string();
    try {
        find(std::nullopt, std::nullopt);
    } catch (const std::exception &error) {
        throw failure(TRITONSERVER_ERROR_INVALID_ARG, "parameter solver: " + std::string(error.what()));
    }
}

void catalogue::add(const std::string &file, const bespoke_model_properties &model) {
    const std::string name = std::filesystem::path(file).stem().string();
    if (files_.count(name) != 0) throw invalid("parameter thetas", '"' + file + '"', "a file name that no other has");
    const auto ladder = bespoke::ladder::load(file);
    names_.push_back(name);
    auto &rungs = files_[name];
    // From the greatest nfe down.
    for (std::uint32_t at_most = UINT32_MAX;;) {
        bespoke_theta *found = nullptr;
        const bespoke_status status = bespoke_ladder_theta(ladder.get(), at_most, &found);
        if (status == BESPOKE_ERROR_INVALID && !rungs.empty()) return;
        bespoke::check(status);
        bespoke::theta theta(found);
        const bespoke_theta_properties info = theta.info();
        const auto notes = nlohmann::json::parse(info.model);
        if (notes.contains("name") && notes["name"].is_string() && notes["name"].get<std::string>() != model.name)
            log(TRITONSERVER_LOG_WARN,
                file + " was trained for " + notes["name"].get<std::string>() + ", not for " + model.name);
        rungs[info.nfe] = std::make_shared<const solver>(solver{name, info.nfe, std::move(theta)});
        if (info.nfe <= 1) return;
        at_most = info.nfe - 1;
    }
}

bespoke::reference catalogue::parse(const std::string &text) const {
    try {
        return bespoke::reference::parse(text, names_);
    } catch (const bespoke::error &error) {
        throw failure(TRITONSERVER_ERROR_INVALID_ARG, "SOLVER " + in_quotes(text) + ": " + cut(error.what()));
    }
}

std::shared_ptr<const solver> catalogue::find(const std::optional<std::string> &name, std::optional<std::int64_t> nfe) {
    if (name) check_text(*name);
    const std::string &text = name ? *name : default_;
    const bespoke::reference wanted = parse(text);
    if (nfe && name && wanted.nfe && *wanted.nfe != *nfe)
        throw invalid("NFE", std::to_string(*nfe), std::to_string(*wanted.nfe) + ", as SOLVER says");
    if (!nfe && wanted.nfe) nfe = *wanted.nfe;
    switch (wanted.kind) {
        case BESPOKE_REFERENCE_FILE:
            return learned(names_[wanted.file], nfe);
        case BESPOKE_REFERENCE_PUBLISHED:
            return published(wanted.name, nfe);
        default:
            throw invalid("SOLVER", in_quotes(text), "a solver with a fixed count of evaluations");
    }
}

std::shared_ptr<const solver> catalogue::learned(const std::string &name,
                                                 std::optional<std::int64_t> nfe_at_most) const {
    const auto &rungs = files_.at(name);
    if (!nfe_at_most) return rungs.rbegin()->second;
    const auto least = rungs.begin()->first;
    if (*nfe_at_most < least)
        throw invalid("NFE", std::to_string(*nfe_at_most),
                      "at least " + std::to_string(least) + ", the least that " + name + " has");
    const auto at_most = static_cast<std::uint32_t>(std::min<std::int64_t>(*nfe_at_most, UINT32_MAX));
    return std::prev(rungs.upper_bound(at_most))->second;
}

std::shared_ptr<const solver> catalogue::published(const std::string &name, std::optional<std::int64_t> count) {
    if (!count) {
        std::string known;
        for (const std::string &file : names_) known += file + ", ";
        throw invalid("SOLVER", in_quotes(name), known + "or a published solver with its NFE, as in midpoint@10");
    }
    if (*count < 1 || *count > max_nfe_)
        throw invalid("NFE", std::to_string(*count), "1 to " + std::to_string(max_nfe_));
    const std::string key = name + '@' + std::to_string(*count);
    const auto nfe = static_cast<std::uint32_t>(*count);
    return made_.find(key, [&] {
        bespoke_theta *theta = nullptr;
        if (bespoke_theta_solver(name.c_str(), nfe, scheduler_.c_str(), &theta) != BESPOKE_OK)
            throw failure(TRITONSERVER_ERROR_INVALID_ARG,
                          "SOLVER " + in_quotes(name) + ": " + cut(bespoke_last_error_message()));
        return solver{name, nfe, bespoke::theta(theta)};
    });
}

}  // namespace bespoke_triton
