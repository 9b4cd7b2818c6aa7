// The stream that libtorch queues this thread's work on, for which torch-sys has no interface. Through c10's own
// interface of devices, so that nothing of CUDA is linked.

#include <c10/core/Device.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <cstdio>
#include <exception>

namespace {

c10::Device device_of(int8_t type, int8_t index) { return {static_cast<c10::DeviceType>(type), index}; }

}  // namespace

extern "C" {

// Makes `native`, a cudaStream_t of the device, or NULL for its default stream, the current stream. Writes what was
// current into `before`, and answers whether that went well; if not, `message` of `length` bytes says why.
bool bespoke_torch_enter_stream(int8_t type, int8_t index, void *native, int64_t *before, char *message,
                                size_t length) noexcept {
    try {
        const c10::Device device = device_of(type, index);
        const c10::impl::VirtualGuardImpl guard(device.type());
        // A stream that libtorch did not make is known by its own address; 0 is the default stream.
        const c10::Stream stream(c10::Stream::UNSAFE, device, reinterpret_cast<c10::StreamId>(native));
        if (native != nullptr && guard.getStreamNativeHandle(stream) != native) {
            std::snprintf(message, length, "this libtorch does not take the stream %p", native);
            return false;
        }
        *before = guard.exchangeStream(stream).id();
        return true;
    } catch (const c10::Error &error) {
        std::snprintf(message, length, "%s", error.what_without_backtrace());
    } catch (const std::exception &error) {
        std::snprintf(message, length, "%s", error.what());
    }
    return false;
}

// Makes the stream current that was before.
void bespoke_torch_leave_stream(int8_t type, int8_t index, int64_t before) noexcept {
    try {
        const c10::Device device = device_of(type, index);
        c10::impl::VirtualGuardImpl(device.type()).exchangeStream(c10::Stream(c10::Stream::UNSAFE, device, before));
    } catch (const std::exception &) {
        // The device was there a moment ago; nobody is left to tell.
    }
}
}
