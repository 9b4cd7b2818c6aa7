#include "triton.hpp"

#include <chrono>
#include <new>

#include "bespoke.hpp"

namespace bespoke_triton {

namespace {

TRITONSERVER_Error_Code code_of(bespoke_status status) {
    switch (status) {
        case BESPOKE_ERROR_INVALID:
        case BESPOKE_ERROR_FORMAT:
            return TRITONSERVER_ERROR_INVALID_ARG;
        case BESPOKE_ERROR_IO:
            return TRITONSERVER_ERROR_NOT_FOUND;
        case BESPOKE_ERROR_UNSUPPORTED:
            return TRITONSERVER_ERROR_UNSUPPORTED;
        case BESPOKE_ERROR_MEMORY:
            return TRITONSERVER_ERROR_UNAVAILABLE;
        default:
            return TRITONSERVER_ERROR_INTERNAL;
    }
}

}  // namespace

bool is_utf8(const std::string &text) {
    try {
        nlohmann::json(text).dump();
        return true;
    } catch (const nlohmann::json::type_error &) {
        return false;
    }
}

std::string cut(const std::string &text) {
    constexpr std::size_t most = 300;
    if (text.size() <= most) return text;
    std::size_t end = most;
    // Not amid a character.
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) end--;
    return text.substr(0, end) + "...";
}

std::string in_quotes(const std::string &text) {
    return nlohmann::json(cut(text)).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void check(TRITONSERVER_Error *error) {
    if (error == nullptr) return;
    const failure copy(TRITONSERVER_ErrorCode(error), TRITONSERVER_ErrorMessage(error));
    TRITONSERVER_ErrorDelete(error);
    throw copy;
}

TRITONSERVER_Error *current_error() {
    try {
        throw;
    } catch (const failure &error) {
        return TRITONSERVER_ErrorNew(error.code(), error.what());
    } catch (const bespoke::error &error) {
        return TRITONSERVER_ErrorNew(code_of(error.status()), error.what());
    } catch (const std::bad_alloc &) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "memory cannot be had");
    } catch (const std::exception &error) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, error.what());
    } catch (...) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "an unknown exception");
    }
}

void log_error(TRITONSERVER_Error *error, const char *doing) noexcept {
    if (error == nullptr) return;
    try {
        log(TRITONSERVER_LOG_ERROR, std::string(doing) + ": " + TRITONSERVER_ErrorMessage(error));
    } catch (...) {
        log(TRITONSERVER_LOG_ERROR, doing);
    }
    TRITONSERVER_ErrorDelete(error);
}

void log(TRITONSERVER_LogLevel level, const std::string &message) noexcept {
    // The server writes file and line before the message.
    TRITONSERVER_Error *error = TRITONSERVER_LogMessage(level, "bespoke", 0, message.c_str());
    if (error != nullptr) TRITONSERVER_ErrorDelete(error);
}

nlohmann::json take_json(TRITONSERVER_Message *message) {
    const char *text = nullptr;
    std::size_t length = 0;
    TRITONSERVER_Error *error = TRITONSERVER_MessageSerializeToJson(message, &text, &length);
    nlohmann::json document;
    if (error == nullptr) document = nlohmann::json::parse(text, text + length, nullptr, false);
    log_error(TRITONSERVER_MessageDelete(message), "freeing a message");
    check(error);
    if (document.is_discarded()) throw failure(TRITONSERVER_ERROR_INTERNAL, "Triton gave a document that is not JSON");
    return document;
}

std::string shape_text(const std::vector<std::int64_t> &shape) { return nlohmann::json(shape).dump(); }

std::uint64_t now_ns() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace bespoke_triton
