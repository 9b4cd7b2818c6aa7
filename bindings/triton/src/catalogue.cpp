#include "catalogue.hpp"

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace bespoke_triton {

namespace {

/// Memory of the published solvers that are kept; a model's clients ask for few, of some kilobytes each.
constexpr std::size_t made_bytes_at_most = std::size_t(16) << 20;

/// A SOLVER is no longer than this: a grid of a thousand times.
constexpr std::size_t solver_text_at_most = std::size_t(32) << 10;

/// Errors where `text` is nothing that a client can have meant.
void check_text(const std::string &text) {
    if (text.size() > solver_text_at_most)
        throw invalid("SOLVER", quoted(text), "at most " + std::to_string(solver_text_at_most) + " bytes");
    if (!is_utf8(text)) throw invalid("SOLVER", quoted(text), "UTF-8");
    if (text.find('\0') != std::string::npos) throw invalid("SOLVER", quoted(text), "text without NUL");
}

}  // namespace

catalogue::catalogue(const settings &settings, const bespoke_model_properties &model) : max_nfe_(settings.max_nfe), made_(made_bytes_at_most) {
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
    if (name.find('@') != std::string::npos) throw invalid("parameter thetas", '"' + file + '"', "a file name without @");
    const auto ladder = bespoke::ladder::load(file);
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
            log(TRITONSERVER_LOG_WARN, file + " was trained for " + notes["name"].get<std::string>() + ", not for " + model.name);
        rungs[info.nfe] = std::make_shared<const solver>(solver{name, info.nfe, std::move(theta)});
        if (info.nfe <= 1) return;
        at_most = info.nfe - 1;
    }
}

catalogue::reference catalogue::parse(const std::string &text) {
    reference wanted;
    const std::size_t at = text.find('@');
    wanted.name = text.substr(0, at);
    if (at == std::string::npos) return wanted;
    const std::size_t colon = text.find(':', at);
    if (colon != std::string::npos) wanted.grid = text.substr(colon + 1);
    const std::string number = text.substr(at + 1, colon == std::string::npos ? colon : colon - at - 1);
    char *end = nullptr;
    errno = 0;
    wanted.nfe = std::strtoll(number.c_str(), &end, 10);
    if (number.empty() || errno != 0 || *end != '\0') throw invalid("SOLVER", quoted(text), "NAME, or NAME@NFE as in midpoint@10");
    return wanted;
}

std::shared_ptr<const solver> catalogue::find(const std::optional<std::string> &name, std::optional<std::int64_t> nfe) {
    if (name) check_text(*name);
    reference wanted = parse(name.value_or(default_));
    if (nfe && name && wanted.nfe && *wanted.nfe != *nfe)
        throw invalid("NFE", std::to_string(*nfe), std::to_string(*wanted.nfe) + ", as SOLVER says");
    if (nfe) wanted.nfe = nfe;
    const auto file = files_.find(wanted.name);
    if (file == files_.end()) return published(wanted);

    if (!wanted.grid.empty()) throw invalid("SOLVER", quoted(*name), "no grid: a theta has learned its times");
    const auto &rungs = file->second;
    if (!wanted.nfe) return rungs.rbegin()->second;
    std::string known;
    for (const auto &[have, solver] : rungs) {
        if (*wanted.nfe == have) return solver;
        known += (known.empty() ? "" : " or ") + std::to_string(have);
    }
    throw invalid("NFE", std::to_string(*wanted.nfe), known + ", which " + wanted.name + " has");
}

std::shared_ptr<const solver> catalogue::published(const reference &wanted) {
    if (!wanted.nfe) {
        std::string known;
        for (const auto &[file, rungs] : files_) known += file + ", ";
        throw invalid("SOLVER", quoted(wanted.name), known + "or a published solver with its NFE, as in midpoint@10");
    }
    if (*wanted.nfe < 1 || *wanted.nfe > max_nfe_)
        throw invalid("NFE", std::to_string(*wanted.nfe), "1 to " + std::to_string(max_nfe_));
    const std::string name = wanted.grid.empty() ? wanted.name : wanted.name + ':' + wanted.grid;
    const std::string key = name + '@' + std::to_string(*wanted.nfe);
    const auto nfe = static_cast<std::uint32_t>(*wanted.nfe);
    return made_.find(key, [&] {
        bespoke_theta *theta = nullptr;
        if (bespoke_theta_solver(name.c_str(), nfe, scheduler_.c_str(), &theta) != BESPOKE_OK)
            throw failure(TRITONSERVER_ERROR_INVALID_ARG, "SOLVER " + quoted(name) + ": " + cut(bespoke_last_error_message()));
        return solver{name, nfe, bespoke::theta(theta)};
    });
}

}  // namespace bespoke_triton
