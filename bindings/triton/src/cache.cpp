#include "cache.hpp"

namespace bespoke_triton {

solver_cache::made solver_cache::use(const std::string &key) {
    const auto found = by_key_.find(key);
    if (found == by_key_.end()) return nullptr;
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->value;
}

solver_cache::made solver_cache::find(const std::string &key, const std::function<solver()> &make) {
    {
        const std::lock_guard lock(mutex_);
        if (auto found = use(key)) return found;
    }
    auto value = std::make_shared<const solver>(make());
    // Its own memory, and that of the name in entry and map.
    const std::size_t bytes = value->theta.info().bytes + 3 * key.size() + sizeof(entry);
    const std::lock_guard lock(mutex_);
    if (auto found = use(key)) return found;
    if (bytes > bytes_at_most_) return value;
    while (bytes_ + bytes > bytes_at_most_) {
        bytes_ -= entries_.back().bytes;
        by_key_.erase(entries_.back().key);
        entries_.pop_back();
    }
    entries_.push_front({key, value, bytes});
    by_key_[key] = entries_.begin();
    bytes_ += bytes;
    return value;
}

}  // namespace bespoke_triton
