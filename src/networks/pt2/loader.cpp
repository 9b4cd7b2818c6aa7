// AOTInductor packages through libtorch's own loader, which has no interface in C. Each function answers NULL, or what
// went wrong as a text that `bespoke_pt2_free` takes back: no exception leaves this file.

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using Loader = torch::inductor::AOTIModelPackageLoader;

namespace {

char *text(const char *message) {
    char *copy = strdup(message);
    // Where even this finds no memory, a text that stays is better than none.
    return copy != nullptr ? copy : const_cast<char *>("");
}

template <typename Work>
char *guarded(Work &&work) noexcept {
    try {
        work();
        return nullptr;
    } catch (const c10::Error &error) {
        return text(error.what_without_backtrace());
    } catch (const std::exception &error) {
        return text(error.what());
    } catch (...) {
        return text("an exception that says nothing of itself");
    }
}

// Told by libtorch's allocators of memory that this thread could not have.
class Refusal : public c10::MemoryReportingInfoBase {
public:
    void reportMemoryUsage(void *, int64_t, size_t, size_t, c10::Device) override {}
    void reportOutOfMemory(int64_t bytes, size_t, size_t, c10::Device) override {
        if (bytes > bytes_) bytes_ = bytes;
    }
    bool memoryProfilingEnabled() const override { return true; }
    int64_t bytes() const { return bytes_; }

private:
    int64_t bytes_ = 0;
};

std::vector<at::Tensor> run(Loader &loader, at::Tensor *const *inputs, size_t length) {
    std::vector<at::Tensor> given;
    given.reserve(length);
    for (size_t i = 0; i < length; i++) given.push_back(*inputs[i]);
    return loader.boxed_run(std::move(given));
}

}  // namespace

extern "C" {

void bespoke_pt2_free(char *message);

// Called with every file of the package that `wanted` answers true for: its name and its contents.
struct bespoke_pt2_reader {
    void *context;
    bool (*wanted)(void *context, const char *name);
    void (*found)(void *context, const char *name, const char *data, size_t length);
};

char *bespoke_pt2_read(const char *path, const bespoke_pt2_reader *reader) {
    return guarded([&] {
        caffe2::serialize::PyTorchStreamReader package{std::string(path)};
        for (const std::string &name : package.getAllRecords()) {
            if (!reader->wanted(reader->context, name.c_str())) continue;
            const auto [data, length] = package.getRecord(name);
            reader->found(reader->context, name.c_str(), static_cast<const char *>(data.get()), length);
        }
    });
}

char *bespoke_pt2_open(const char *path, const char *model, size_t runners, int8_t device, Loader **loader) {
    return guarded([&] { *loader = new Loader(path, model, false, runners, device); });
}

// `outputs` has room for `most` tensors, each the caller's own; `count` is how many there are, those for which there
// is no room included. The tensors of `inputs` stay the caller's.
//
// A package keeps to itself why it failed: it prints that and answers a number. Memory is a cause of its own, and is
// found out by another run that the allocators report to; they would slow down every run and remember every tensor.
// `refused` is then the bytes that could not be had. A profiler of the host's stands in the one place that they report
// to: while there is one, nothing is found out.
char *bespoke_pt2_run(Loader *loader, at::Tensor *const *inputs, size_t length, at::Tensor **outputs, size_t most,
                      size_t *count, int64_t *refused) {
    return guarded([&] {
        std::vector<at::Tensor> found;
        try {
            found = run(*loader, inputs, length);
        } catch (const std::exception &) {
            constexpr auto place = c10::DebugInfoKind::PROFILER_STATE;
            if (c10::ThreadLocalDebugInfo::get(place) != nullptr) throw;
            const auto refusal = std::make_shared<Refusal>();
            const c10::DebugInfoGuard watched(place, refusal);
            try {
                found = run(*loader, inputs, length);
            } catch (const std::exception &) {
                *refused = refusal->bytes();
                throw;
            }
        }
        *count = found.size();
        for (size_t i = 0; i < found.size() && i < most; i++) outputs[i] = new at::Tensor(std::move(found[i]));
    });
}

void bespoke_pt2_close(Loader *loader) {
    // A destructor that throws would end the process.
    bespoke_pt2_free(guarded([&] { delete loader; }));
}

void bespoke_pt2_free(char *message) {
    if (message != nullptr && *message != '\0') free(message);
}
}
