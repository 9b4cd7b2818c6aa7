// bespoke::reference and bespoke_reference_parse: what users write for a solver.

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bespoke.hpp"

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1);                                                        \
        }                                                                        \
    } while (0)

static const std::vector<std::string> files{"theta", "a ladder, of mine", "euler@4"};

static void refused(const std::string &text, const std::string &said) {
    try {
        bespoke::reference::parse(text, files);
    } catch (const bespoke::error &failure) {
        CHECK(failure.status() == BESPOKE_ERROR_INVALID);
        if (std::string(failure.what()).find(said) == std::string::npos) std::fprintf(stderr, "%s\n", failure.what());
        CHECK(std::string(failure.what()).find(said) != std::string::npos);
        return;
    }
    std::fprintf(stderr, "%s was taken\n", text.c_str());
    std::exit(1);
}

int main() {
    using bespoke::reference;
    const auto of_file = reference::parse("a ladder, of mine@8", files);
    CHECK(of_file.kind == BESPOKE_REFERENCE_FILE && of_file.file == 1 && of_file.nfe == 8u);
    CHECK(!reference::parse("theta", files).nfe);
    CHECK(reference::parse("euler@4", files).file == 2);

    const auto published = reference::parse("dpm++2m@10:logsnr", files);
    CHECK(published.kind == BESPOKE_REFERENCE_PUBLISHED && published.name == "dpm++2m:logsnr" && published.nfe == 10u);
    const auto bare = reference::parse("midpoint", {});
    CHECK(bare.kind == BESPOKE_REFERENCE_PUBLISHED && bare.name == "midpoint" && !bare.nfe);
    CHECK(reference::parse("gt", files).kind == BESPOKE_REFERENCE_GROUND_TRUTH);

    refused("nonesuch@4", "midpoint");
    refused("theta@x", "whole number");
    refused("theta@0", "nfe is 0");
    refused("midpoint@0", "nfe is 0");
    refused("midpoint@99999999999", "nfe");

    bespoke_reference found{};
    CHECK(bespoke_reference_parse("gt", nullptr, 0, &found) == BESPOKE_ERROR_INVALID);
    found.struct_size = sizeof found;
    CHECK(bespoke_reference_parse("gt", nullptr, 1, &found) == BESPOKE_ERROR_INVALID);
    CHECK(bespoke_reference_parse(nullptr, nullptr, 0, &found) == BESPOKE_ERROR_INVALID);
    CHECK(bespoke_reference_parse("gt", nullptr, 0, nullptr) == BESPOKE_ERROR_INVALID);
    CHECK(bespoke_reference_parse("gt", nullptr, 0, &found) == BESPOKE_OK);
    return 0;
}
