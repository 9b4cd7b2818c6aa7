#include "shares.hpp"

#include <algorithm>
#include <limits>

namespace bespoke_triton {

void pace::learn(double size, double seconds) noexcept {
    constexpr double kept = 1.0 - 1.0 / 64;
    count_ = kept * count_ + 1;
    size_ = kept * size_ + size;
    seconds_ = kept * seconds_ + seconds;
    size_size_ = kept * size_size_ + size * size;
    size_seconds_ = kept * size_seconds_ + size * seconds;
}

double pace::within(double size, double times) const noexcept {
    const double scatter = count_ * size_size_ - size_ * size_;
    // Calls of one size tell nothing of another.
    if (scatter <= 1e-9 * size_ * size_) return times * size;
    const double slope = (count_ * size_seconds_ - size_ * seconds_) / scatter;
    if (slope <= 0) return std::numeric_limits<double>::infinity();
    const double start = std::max(0.0, (seconds_ - slope * size_) / count_);
    return times * size + (times - 1) * start / slope;
}

std::vector<std::size_t> shares(const std::vector<std::size_t> &wanted, std::size_t most, const pace &pace,
                                double unit) {
    std::vector<std::size_t> given(wanted.size(), 0), sorted = wanted;
    if (wanted.empty()) return given;
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>((sorted.size() - 1) / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    const std::size_t usual = *middle;
    const auto larger = std::count_if(wanted.begin(), wanted.end(), [&](std::size_t own) { return own > usual; });

    std::size_t sum = 0, limit = most;
    for (std::size_t round = 1, before = most; sum != before; round++) {
        if (round == usual + 1) {
            const double times = 1.0 + static_cast<double>(larger) / static_cast<double>(wanted.size());
            const double size = pace.within(static_cast<double>(sum) * unit, times) / unit;
            if (size < static_cast<double>(most)) limit = static_cast<std::size_t>(size);
        }
        before = sum;
        for (std::size_t i = 0; i < wanted.size(); i++) {
            if (wanted[i] < round || sum >= limit) continue;
            given[i]++;
            sum++;
        }
    }
    return given;
}

}  // namespace bespoke_triton
