// What a server of another API is told.

#include <cstdio>
#include <cstdlib>
#include <string>

#include "triton.hpp"

namespace {

constexpr std::uint32_t major = TRITONBACKEND_API_VERSION_MAJOR, minor = TRITONBACKEND_API_VERSION_MINOR;

std::string text(std::uint32_t of_major, std::uint32_t of_minor) {
    return std::to_string(of_major) + '.' + std::to_string(of_minor);
}

/// Empty where the server is taken.
std::string said(std::uint32_t of_major, std::uint32_t of_minor) {
    try {
        bespoke_triton::check_api(of_major, of_minor);
        return "";
    } catch (const bespoke_triton::failure &error) {
        return error.what();
    }
}

void refused(std::uint32_t of_major, std::uint32_t of_minor) {
    const std::string expected = "the backend API of this server is " + text(of_major, of_minor) + ", expected " +
                                 text(major, minor) + " or later";
    if (said(of_major, of_minor) == expected) return;
    std::fprintf(stderr, "%s: %s\n", expected.c_str(), said(of_major, of_minor).c_str());
    std::exit(1);
}

}  // namespace

int main() {
    for (const std::uint32_t later : {minor, minor + 1, minor + 100})
        if (!said(major, later).empty()) return 1;
    refused(major, minor - 1);
    refused(major + 1, minor);
    refused(major - 1, minor + 1);
    std::puts("ok");
}
