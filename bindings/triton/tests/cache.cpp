// The cache of published solvers: what is used stays, memory is bounded, and making one keeps nobody waiting.

#include "cache.hpp"

#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace bespoke_triton;

namespace {

void require(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::exit(1);
}

int made = 0;

solver make(std::uint32_t nfe) {
    made++;
    return {"euler", nfe, bespoke::theta::solver("euler", nfe, "fm-ot")};
}

}  // namespace

int main() {
    // A solver of a thousand evaluations takes some 200 kB.
    solver_cache cache(std::size_t(1) << 20);
    const auto first = cache.find("first", [] { return make(1000); });
    require(cache.find("first", [] { return make(7); }) == first && made == 1, "it is made once");
    for (int i = 0; i < 20; i++) {
        cache.find(std::to_string(i), [] { return make(1000); });
        cache.find("first", [] { return make(7); });
    }
    require(made == 21, "one that is used stays");
    cache.find("19", [] { return make(7); });
    require(made == 21, "and so does one that was used lately");
    cache.find("0", [] { return make(1000); });
    require(made == 22, "one that has long not been used goes");

    solver_cache small(1000);
    require(small.find("large", [] { return make(1000); })->nfe == 1000, "one that does not fit is given");
    small.find("large", [] { return make(1000); });
    require(made == 24, "and not kept");

    bool found = false;
    cache.find("slow", [&] {
        std::thread other([&] { found = cache.find("first", [] { return make(7); }) == first; });
        other.join();
        return make(4);
    });
    require(found, "another thread finds its own while one is made");

    try {
        cache.find("none", []() -> solver { return {"none", 1, bespoke::theta::solver("none", 1, "fm-ot")}; });
        require(false, "an unknown solver is an error");
    } catch (const bespoke::error &) {}
    std::puts("ok");
}
