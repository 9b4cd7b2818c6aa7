// ONNX Runtime's C API with owners and exceptions: as much of it as this program needs.

#ifndef TTS_ONNX_HPP
#define TTS_ONNX_HPP

#include <onnxruntime_c_api.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace onnx {

inline const OrtApi &api() {
    static const OrtApi *const found = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (found == nullptr)
        throw std::runtime_error(std::string("ONNX Runtime ") + OrtGetApiBase()->GetVersionString() +
                                 " does not have version " + std::to_string(ORT_API_VERSION) + " of its C API");
    return *found;
}

/// Throws what `status` says, if it is a failure, of the graph `path`.
inline void check(OrtStatus *status, const std::string &path = "ONNX Runtime") {
    if (status == nullptr) return;
    const std::string message = api().GetErrorMessage(status);
    api().ReleaseStatus(status);
    throw std::runtime_error(path + ": " + message);
}

template <class T, auto Release>
struct deleter {
    void operator()(T *object) const noexcept { (api().*Release)(object); }
};
template <class T, auto Release>
using owner = std::unique_ptr<T, deleter<T, Release>>;

/// A tensor.
using value = owner<OrtValue, &OrtApi::ReleaseValue>;

template <class T>
constexpr ONNXTensorElementDataType element_type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
template <>
inline constexpr ONNXTensorElementDataType element_type<float> = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
template <>
inline constexpr ONNXTensorElementDataType element_type<std::int64_t> = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

/// A tensor over memory of the caller's, which has to outlive it. What is given to a graph is only read.
template <class T>
value borrowed(const T *data, const std::vector<std::int64_t> &shape) {
    static const auto memory = [] {
        OrtMemoryInfo *made = nullptr;
        check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &made));
        return owner<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo>(made);
    }();
    std::size_t bytes = sizeof(T);
    for (std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
    OrtValue *made = nullptr;
    check(api().CreateTensorWithDataAsOrtValue(memory.get(), const_cast<T *>(data), bytes, shape.data(), shape.size(),
                                               element_type<T>, &made));
    return value(made);
}

/// The numbers of a tensor that a graph answered.
inline std::vector<float> numbers(const OrtValue &tensor) {
    OrtTensorTypeAndShapeInfo *info = nullptr;
    check(api().GetTensorTypeAndShape(&tensor, &info));
    const owner<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo> owned(info);
    std::size_t count = 0;
    check(api().GetTensorShapeElementCount(info, &count));
    void *data = nullptr;
    check(api().GetTensorMutableData(const_cast<OrtValue *>(&tensor), &data));
    return {static_cast<float *>(data), static_cast<float *>(data) + count};
}

/// One graph, on one thread.
class session {
public:
    using inputs = std::vector<std::pair<const char *, const OrtValue *>>;

    explicit session(const std::string &path) : path_(path) {
        static const auto environment = [] {
            OrtEnv *made = nullptr;
            check(api().CreateEnv(ORT_LOGGING_LEVEL_WARNING, "tts", &made));
            return owner<OrtEnv, &OrtApi::ReleaseEnv>(made);
        }();
        OrtSessionOptions *options = nullptr;
        check(api().CreateSessionOptions(&options));
        const owner<OrtSessionOptions, &OrtApi::ReleaseSessionOptions> owned(options);
        check(api().SetIntraOpNumThreads(options, 1));
        OrtSession *made = nullptr;
        check(api().CreateSession(environment.get(), path.c_str(), options, &made), path_);
        handle_.reset(made);
    }

    /// The output called `output`: written to `into`, or made by the runtime where that is null.
    value run(const inputs &given, const char *output, value into = nullptr) const {
        std::vector<const char *> names;
        std::vector<const OrtValue *> tensors;
        for (const auto &[name, tensor] : given) {
            names.push_back(name);
            tensors.push_back(tensor);
        }
        OrtValue *answer = into.get();
        check(api().Run(handle_.get(), nullptr, names.data(), tensors.data(), tensors.size(), &output, 1, &answer),
              path_);
        if (answer != into.get()) into.reset(answer);
        return into;
    }

    /// What the graph's metadata say under `key`.
    std::string metadata(const char *key) const {
        OrtModelMetadata *all = nullptr;
        check(api().SessionGetModelMetadata(handle_.get(), &all));
        const owner<OrtModelMetadata, &OrtApi::ReleaseModelMetadata> owned(all);
        OrtAllocator *allocator = nullptr;
        check(api().GetAllocatorWithDefaultOptions(&allocator));
        char *found = nullptr;
        check(api().ModelMetadataLookupCustomMetadataMap(all, allocator, key, &found));
        if (found == nullptr) throw std::runtime_error(path_ + ": its metadata lack " + key);
        std::string text = found;
        check(api().AllocatorFree(allocator, found));
        return text;
    }

    /// The same, a number of 1 or more.
    double number(const char *key) const {
        const std::string text = metadata(key);
        char *end = nullptr;
        const double found = std::strtod(text.c_str(), &end);
        if (end == text.c_str() || *end != '\0' || !(found >= 1 && found < 1e9))
            throw std::runtime_error(path_ + ": its metadata have " + key + " " + text +
                                     ", expected a number from 1 to 1e9");
        return found;
    }

private:
    std::string path_;
    owner<OrtSession, &OrtApi::ReleaseSession> handle_;
};

}  // namespace onnx

#endif
