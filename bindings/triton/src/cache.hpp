// Published solvers that were asked for, made once and kept within a bound of memory.

#ifndef BESPOKE_TRITON_CACHE_HPP
#define BESPOKE_TRITON_CACHE_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "bespoke.hpp"

namespace bespoke_triton {

/// A theta under the name that requests give it.
struct solver {
    std::string name;
    std::uint32_t nfe;
    bespoke::theta theta;
};

/// The solvers used last, by what clients call them. Any thread.
class solver_cache {
public:
    using made = std::shared_ptr<const solver>;

    explicit solver_cache(std::size_t bytes_at_most) : bytes_at_most_(bytes_at_most) {}

    /// The solver of `key`, by `make` where it is not there. Other threads find theirs meanwhile; two that miss the
    /// same one both make it, and one is kept.
    made find(const std::string &key, const std::function<solver()> &make);

private:
    struct entry {
        std::string key;
        made value;
        std::size_t bytes;
    };

    /// `key` as the one used last, or nothing. Under the lock.
    made use(const std::string &key);

    const std::size_t bytes_at_most_;
    std::mutex mutex_;
    std::size_t bytes_ = 0;
    /// The one used last comes first.
    std::list<entry> entries_;
    std::map<std::string, std::list<entry>::iterator> by_key_;
};

}  // namespace bespoke_triton

#endif
