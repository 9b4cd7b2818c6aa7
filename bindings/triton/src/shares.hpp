// Who has how many samples in a call of the network.

#ifndef BESPOKE_TRITON_SHARES_HPP
#define BESPOKE_TRITON_SHARES_HPP

#include <cstddef>
#include <vector>

namespace bespoke_triton {

/// How long a call of the network takes by its size: a + b size seconds, learned from calls as they come. On a GPU b is
/// next to nothing, on a processor a is.
class pace {
public:
    void learn(double size, double seconds) noexcept;
    /// The size of a call that takes `times` as long as one of `size`; infinity where size makes no difference. While
    /// nothing is known, time is taken to grow with the size.
    double within(double size, double times) const noexcept;

private:
    // Sums over the calls, each of which weighs less with every later one.
    double count_ = 0, size_ = 0, seconds_ = 0, size_size_ = 0, size_seconds_ = 0;
};

/// Of each request, its samples in the next call, `most` in all; `wanted` are those that it could have. Requests take
/// turns, a sample at a time and the first one first. Those that want more than most others do get what these leave,
/// as far as each of them makes the call longer by no more than one of the others does. `unit` is a sample's size.
std::vector<std::size_t> shares(const std::vector<std::size_t> &wanted, std::size_t most, const pace &pace,
                                double unit);

}  // namespace bespoke_triton

#endif
