// One request: its samples on their way, and its responses.

#ifndef BESPOKE_TRITON_REQUEST_HPP
#define BESPOKE_TRITON_REQUEST_HPP

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "catalogue.hpp"
#include "device.hpp"
#include "model.hpp"

namespace bespoke_triton {

class inputs;

/// What one sample is asked to be.
struct sample {
    std::shared_ptr<const solver> by;
    std::int64_t of_class = 0;
    double guidance_scale = 1.0;
    /// The other scales, in the order of the signature.
    std::vector<double> scales;
    /// The row of the request that it is of, and so of the inputs.
    std::size_t row = 0;
};

/// An input of the network as a request gives it.
struct column {
    /// Of one row.
    std::vector<std::int64_t> shape;
    std::size_t row_bytes;
    /// Row after row.
    std::vector<char> bytes;
};

/// A request that this backend holds, until it has answered. One thread at a time.
class request {
public:
    /// Takes the request over. Its samples are in the memory of `place`, or, where that is nullptr, the host's.
    request(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *handle, std::shared_ptr<const device> place);
    /// A request that was not answered is answered with an error.
    ~request();
    request(const request &) = delete;
    request &operator=(const request &) = delete;

    /// Reads and checks the inputs.
    void read(model &model);

    /// Sends samples as they are: predictions of x(1), as long as they are not final.
    void send_preview(const float *predictions);
    /// Answers with the samples and lets the request go.
    void finish();
    /// Answers with an error and lets the request go.
    void fail(TRITONSERVER_Error *error) noexcept;
    bool cancelled() const;
    /// Whether all numbers of its states are finite.
    bool finite() const;

    /// The samples, and their states: x(0), then where each stands, at last x(1).
    std::vector<sample> samples;
    storage states;
    /// What the network is given besides, in the order of the signature.
    std::vector<column> columns;
    /// The sizes that have a name; what shares an evaluation agrees in them.
    bespoke_triton::sizes sizes;
    /// Shape of one sample, and its numbers; and with those of its inputs.
    std::vector<std::int64_t> shape;
    std::size_t elements = 1, numbers = 1;

    /// Samples that have begun, and that are done.
    std::size_t begun = 0, done = 0;
    /// Network calls that it took part in, and the time of those and of the work between them.
    std::uint32_t calls = 0;
    std::uint64_t network_ns = 0, solver_ns = 0, first_call_ns = 0, last_call_ns = 0;
    /// Evaluations between two previews; 0 is none.
    std::uint32_t preview_every = 0;

private:
    void read_parameters(const signature &signature);
    void read_sizes(const inputs &given, const model &model);
    void read_columns(const inputs &given, const signature &signature);
    void read_samples(const inputs &given, model &model);
    void read_states(const inputs &given, const std::vector<std::int64_t> &counts, const model &model);
    void read_noise(const inputs &given);
    void draw_noise(const inputs &given, const std::vector<std::int64_t> &counts);
    TRITONBACKEND_Response *respond(const float *values, bool final);
    void let_go(bool success) noexcept;

    TRITONBACKEND_ModelInstance *instance_;
    TRITONBACKEND_Request *handle_;
    TRITONBACKEND_ResponseFactory *factory_ = nullptr;
    std::uint64_t started_ns_;
    bool decoupled_ = false;
};

}  // namespace bespoke_triton

#endif
