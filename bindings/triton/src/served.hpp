// Another model of the same server as the network, called in process.

#ifndef BESPOKE_TRITON_SERVED_HPP
#define BESPOKE_TRITON_SERVED_HPP

#include <memory>
#include <mutex>

#include "device.hpp"
#include "network.hpp"
#include "settings.hpp"

namespace bespoke_triton {

/// Any thread. The other model is looked for at the first evaluation, since no order of loading is promised.
class served_network : public network {
public:
    /// States and output are in the memory of `place`, or, where that is nullptr, the host's.
    served_network(TRITONSERVER_Server *server, const settings &settings, std::shared_ptr<const device> place);
    ~served_network() override;

    void forward(const bespoke::call &asked) override;

private:
    /// What the other model's configuration says.
    struct resolved {
        std::int64_t max_batch;
        bool time_is_column;
        TRITONSERVER_DataType x_type, time_type, class_type, output_type;
    };
    struct call;

    resolved resolve(const bespoke_call &asked);
    void fill(call &part, const bespoke_call &given, const resolved &other, std::int64_t first,
              std::int64_t rows) const;
    TRITONSERVER_InferenceRequest *request(call &call);
    void send(call &call);
    void send_narrow(call &part, float *output, std::size_t count);

    std::shared_ptr<const device> place_;
    TRITONSERVER_Server *server_;
    std::string model_, x_, t_, class_, output_;
    std::int64_t version_;
    TRITONSERVER_ResponseAllocator *allocator_ = nullptr;
    std::mutex mutex_;
    std::unique_ptr<resolved> known_;
};

}  // namespace bespoke_triton

#endif
