// AOTInductor packages through libtorch's own loader, which has no interface in C. Each function answers NULL, or what
// went wrong as a text that `bespoke_pt2_free` takes back: no exception leaves this file.

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
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
char *bespoke_pt2_run(Loader *loader, at::Tensor *const *inputs, size_t length, at::Tensor **outputs, size_t most,
                      size_t *count) {
    return guarded([&] {
        std::vector<at::Tensor> given;
        given.reserve(length);
        for (size_t i = 0; i < length; i++) given.push_back(*inputs[i]);
        std::vector<at::Tensor> found = loader->boxed_run(std::move(given));
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
