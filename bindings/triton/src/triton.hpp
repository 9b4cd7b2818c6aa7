// Triton's C API as this backend speaks to it: errors as exceptions, JSON, the log, time.

#ifndef BESPOKE_TRITON_TRITON_HPP
#define BESPOKE_TRITON_TRITON_HPP

#ifdef BESPOKE_OFFICIAL_TRITON_HEADERS
#include <triton/core/tritonbackend.h>
#else
#include "triton_api.h"
#endif

#include <cstdint>
#include <exception>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bespoke_triton {

/// What goes wrong in this backend, with the code that Triton makes a status of.
class failure : public std::runtime_error {
public:
    failure(TRITONSERVER_Error_Code code, const std::string &message) : std::runtime_error(message), code_(code) {}
    TRITONSERVER_Error_Code code() const noexcept { return code_; }

private:
    TRITONSERVER_Error_Code code_;
};

/// A value of the caller that cannot be used.
inline failure invalid(const std::string &name, const std::string &value, const std::string &expected) {
    return failure(TRITONSERVER_ERROR_INVALID_ARG, name + " is " + value + ", expected " + expected);
}

/// Errors where a server's backend API is another than the one built for: another major version, or an earlier minor one.
inline void check_api(std::uint32_t major, std::uint32_t minor) {
    if (major == TRITONBACKEND_API_VERSION_MAJOR && minor >= TRITONBACKEND_API_VERSION_MINOR) return;
    throw invalid("the backend API of this server", std::to_string(major) + '.' + std::to_string(minor),
                  std::to_string(TRITONBACKEND_API_VERSION_MAJOR) + '.' +
                      std::to_string(TRITONBACKEND_API_VERSION_MINOR) + " or later");
}

/// Whether `text` is UTF-8.
bool is_utf8(const std::string &text);

/// The beginning of `text`, where it is long: what a message can hold.
std::string cut(const std::string &text);

/// A client's text for a message: its beginning in quotes, as JSON writes it; what is no UTF-8 is replaced.
std::string in_quotes(const std::string &text);

/// Throws what Triton answers, if it is an error.
void check(TRITONSERVER_Error *error);

/// The exception at work as an error of Triton, which its receiver frees.
TRITONSERVER_Error *current_error();

/// Runs an entry point: nothing is thrown into the server.
template <class Body>
TRITONSERVER_Error *guard(Body &&body) noexcept {
    try {
        std::forward<Body>(body)();
        return nullptr;
    } catch (...) {
        return current_error();
    }
}

/// What Triton answers where nothing can be done about it, said in the log.
void log_error(TRITONSERVER_Error *error, const char *doing) noexcept;
void log(TRITONSERVER_LogLevel level, const std::string &message) noexcept;

/// The document in a message, which is freed.
nlohmann::json take_json(TRITONSERVER_Message *message);

/// A shape as messages give it.
std::string shape_text(const std::vector<std::int64_t> &shape);

/// Time as statistics count it.
std::uint64_t now_ns();

}  // namespace bespoke_triton

#endif
