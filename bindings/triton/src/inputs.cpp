#include "inputs.hpp"

#include <cstring>

namespace bespoke_triton {

namespace {

template <class T>
std::vector<T> numbers(const std::vector<char> &bytes, const std::string &name, std::size_t count) {
    if (bytes.size() != count * sizeof(T))
        throw invalid(name, std::to_string(bytes.size()) + " bytes", std::to_string(count * sizeof(T)));
    std::vector<T> values(count);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
}

}  // namespace

inputs::inputs(TRITONBACKEND_Request *request, const device *place) : place_(place) {
    std::uint32_t count = 0;
    check(TRITONBACKEND_RequestInputCount(request, &count));
    for (std::uint32_t i = 0; i < count; i++) {
        tensor own{};
        const char *name = nullptr;
        const std::int64_t *shape = nullptr;
        std::uint32_t rank = 0;
        check(TRITONBACKEND_RequestInputByIndex(request, i, &own.handle));
        check(TRITONBACKEND_InputProperties(own.handle, &name, &own.type, &shape, &rank, nullptr, &own.buffers));
        own.shape.assign(shape, shape + rank);
        const std::int64_t rows = rank == 0 ? 0 : shape[0];
        if (rows < 1) throw invalid(std::string(name) + ".shape", shape_text(own.shape), "at least one row");
        if (i > 0 && static_cast<std::size_t>(rows) != rows_)
            throw invalid(std::string(name) + ".shape", shape_text(own.shape),
                          std::to_string(rows_) + " rows, as the inputs before it");
        rows_ = static_cast<std::size_t>(rows);
        tensors_.emplace(name, std::move(own));
    }
}

std::optional<std::vector<std::int64_t>> inputs::shape(const std::string &name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return std::nullopt;
    return std::vector<std::int64_t>(found->second.shape.begin() + 1, found->second.shape.end());
}

const inputs::tensor *inputs::find(const std::string &name, TRITONSERVER_DataType type,
                                   const std::vector<std::int64_t> &shape) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return nullptr;
    const tensor &own = found->second;
    if (own.type != type)
        throw invalid(name + ".datatype", TRITONSERVER_DataTypeString(own.type), TRITONSERVER_DataTypeString(type));
    std::vector<std::int64_t> expected = shape;
    expected.insert(expected.begin(), static_cast<std::int64_t>(rows_));
    if (own.shape != expected) throw invalid(name + ".shape", shape_text(own.shape), shape_text(expected));
    return &own;
}

template <class Take>
void inputs::each_buffer(const tensor &own, const std::string &name, Take take) const {
    for (std::uint32_t i = 0; i < own.buffers; i++) {
        const void *data = nullptr;
        std::uint64_t size = 0;
        TRITONSERVER_MemoryType memory = TRITONSERVER_MEMORY_CPU;
        std::int64_t memory_id = 0;
        check(TRITONBACKEND_InputBuffer(own.handle, i, &data, &size, &memory, &memory_id));
        if (memory == TRITONSERVER_MEMORY_GPU && place_ == nullptr)
            throw failure(TRITONSERVER_ERROR_UNSUPPORTED, name + " lies in GPU memory, expected host memory");
        take(static_cast<const char *>(data), static_cast<std::size_t>(size), memory == TRITONSERVER_MEMORY_GPU);
    }
}

std::optional<std::vector<char>> inputs::bytes(const std::string &name, TRITONSERVER_DataType type,
                                               const std::vector<std::int64_t> &shape) const {
    const tensor *own = find(name, type, shape);
    if (own == nullptr) return std::nullopt;
    std::vector<char> values;
    each_buffer(*own, name, [&](const char *data, std::size_t size, bool there) {
        const std::size_t before = values.size();
        values.resize(before + size);
        if (there) {
            place_->copy(values.data() + before, data, size);
        } else if (size > 0) {
            std::memcpy(values.data() + before, data, size);
        }
    });
    return values;
}

void inputs::floats_into(float *numbers, const std::string &name, const std::vector<std::int64_t> &shape) const {
    const tensor *own = find(name, TRITONSERVER_TYPE_FP32, shape);
    if (own == nullptr) throw failure(TRITONSERVER_ERROR_INVALID_ARG, name + " is missing");
    std::size_t room = rows_ * sizeof(float), given = 0;
    for (const std::int64_t size : shape) room *= static_cast<std::size_t>(size);
    const auto wrong = [&](std::size_t bytes) {
        return invalid(name, std::to_string(bytes) + " bytes", std::to_string(room));
    };
    each_buffer(*own, name, [&](const char *data, std::size_t size, bool) {
        if (size > room - given) throw wrong(given + size);
        char *to = reinterpret_cast<char *>(numbers) + given;
        if (place_ != nullptr) {
            place_->copy(to, data, size);
        } else if (size > 0) {
            std::memcpy(to, data, size);
        }
        given += size;
    });
    if (given != room) throw wrong(given);
}

std::optional<std::vector<float>> inputs::floats(const std::string &name,
                                                 const std::vector<std::int64_t> &shape) const {
    const auto raw = bytes(name, TRITONSERVER_TYPE_FP32, shape);
    if (!raw) return std::nullopt;
    std::size_t count = rows_;
    for (std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    return numbers<float>(*raw, name, count);
}

std::optional<std::vector<std::int64_t>> inputs::integers(const std::string &name) const {
    const auto raw = bytes(name, TRITONSERVER_TYPE_INT64, {1});
    if (!raw) return std::nullopt;
    return numbers<std::int64_t>(*raw, name, rows_);
}

std::optional<std::vector<std::string>> inputs::texts(const std::string &name) const {
    const auto raw = bytes(name, TRITONSERVER_TYPE_BYTES, {1});
    if (!raw) return std::nullopt;
    std::vector<std::string> values;
    std::size_t at = 0;
    while (values.size() < rows_) {
        // Each text comes behind its length, 32 bits, little-endian.
        std::uint32_t length = 0;
        if (raw->size() - at < sizeof length) break;
        std::memcpy(&length, raw->data() + at, sizeof length);
        at += sizeof length;
        if (raw->size() - at < length) break;
        values.emplace_back(raw->data() + at, length);
        at += length;
    }
    if (values.size() != rows_ || at != raw->size())
        throw invalid(name, std::to_string(raw->size()) + " bytes",
                      std::to_string(rows_) + " texts, each behind its length");
    return values;
}

}  // namespace bespoke_triton
