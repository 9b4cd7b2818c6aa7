// What a card's network takes, in Triton's terms.

#ifndef BESPOKE_TRITON_SIGNATURE_HPP
#define BESPOKE_TRITON_SIGNATURE_HPP

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bespoke.hpp"
#include "triton.hpp"

namespace bespoke_triton {

/// Sizes that have a name, of one sample.
using sizes = std::map<std::string, std::int64_t>;

/// The shape of a sample or of an input's row. A size that has a name is -1 until a request says it.
class shape {
public:
    shape(const std::int64_t *dims, const char *const *names, std::size_t rank);

    const std::vector<std::int64_t> &dims() const noexcept { return dims_; }
    /// Empty where a size is a number.
    const std::vector<std::string> &names() const noexcept { return names_; }
    bool named() const noexcept;

    /// Takes the named sizes from `given`, the shape that the client's tensor `tensor` has; errors where it does not
    /// fit, or says another size than a tensor before it.
    void learn(const std::string &tensor, const std::vector<std::int64_t> &given, sizes &known) const;
    /// With all sizes. Errors where one is not known.
    std::vector<std::int64_t> resolve(const sizes &known) const;

private:
    std::vector<std::int64_t> dims_;
    std::vector<std::string> names_;
};

/// An input of the network. A client gives it under the same name.
struct network_input {
    std::string name;
    DLDataType dtype;
    TRITONSERVER_DataType type;
    /// Of one row; a number is a column of one for Triton.
    bespoke_triton::shape shape;
};

/// Immutable.
class signature {
public:
    /// Errors where a name is one that the backend's own tensors have.
    explicit signature(const bespoke_model_properties &model);

    /// Of one sample.
    const bespoke_triton::shape &sample() const noexcept { return sample_; }
    /// Without classes, and without an input that is given the guidance scale.
    const std::vector<network_input> &inputs() const noexcept { return inputs_; }
    /// Names of the scales of guidance but `guidance_scale`.
    const std::vector<std::string> &scales() const noexcept { return scales_; }
    /// Whether there is a scale `guidance_scale`.
    bool guided() const noexcept { return guided_; }
    /// Whether the network is given that scale, whatever it is.
    bool scale_is_input() const noexcept { return scale_is_input_; }
    std::int64_t classes() const noexcept { return classes_; }
    /// Whether samples may differ in size.
    bool sized() const noexcept;
    /// Whether a size of this name is part of it.
    bool has_size(const std::string &name) const;

private:
    bespoke_triton::shape sample_;
    std::vector<network_input> inputs_;
    std::vector<std::string> scales_;
    bool guided_ = false, scale_is_input_ = false;
    std::int64_t classes_ = 0;
};

/// What Triton calls a dtype; errors where it has none for the input `name`.
TRITONSERVER_DataType type_of(const std::string &name, const DLDataType &dtype);

/// Bytes of one number.
std::size_t bytes_of(const DLDataType &dtype);

/// Numbers of a shape, or `limit` + 1 where they are more than that.
std::size_t count_of(const std::vector<std::int64_t> &dims, std::size_t limit);

}  // namespace bespoke_triton

#endif
