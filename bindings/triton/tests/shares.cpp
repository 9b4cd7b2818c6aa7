// Who has how many samples in a call: equals have the same, nobody is left out for long, and those who want more than
// most have what costs the others little.

#include "shares.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>

using namespace bespoke_triton;
using counts = std::vector<std::size_t>;

namespace {

void require(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "not so: %s\n", what);
    std::exit(1);
}

/// Of calls of 1 to 64 samples that take `start` + `each` n seconds.
pace learned(double start, double each) {
    pace own;
    for (int i = 0; i < 200; i++) own.learn(1 + i % 64, start + each * (1 + i % 64));
    return own;
}

counts with_one_of(std::size_t large, std::size_t others) {
    counts wanted(others, 1);
    wanted.push_back(large);
    return wanted;
}

bool near(double found, double expected) { return std::abs(found - expected) < 1e-6 * expected; }

void pace_is_learned() {
    require(near(pace().within(10, 1.5), 15), "time grows with the size while nothing is known");
    pace one_size;
    for (int i = 0; i < 10; i++) one_size.learn(7, 0.1);
    require(near(one_size.within(7, 2), 14), "and while one size alone is known");
    // 10 + 10 = 20 s for 10; twice as long are 30.
    require(near(learned(10, 1).within(10, 2), 30), "what a call costs apart from its size counts");
    require(std::isinf(learned(1, 0).within(10, 1.01)), "size may make no difference");
    require(std::isinf(learned(1, -0.001).within(10, 1.01)), "nor by chance less than none");
    pace changed = learned(10, 1);
    for (int i = 0; i < 2000; i++) changed.learn(1 + i % 64, 5 + 2.0 * (1 + i % 64));
    require(std::abs(changed.within(10, 2) - 22.5) < 0.01, "what was long ago is forgotten");
}

void shares_are_fair() {
    const pace processor = learned(4, 1), gpu = learned(20, 0);
    require(shares({}, 64, processor, 1).empty(), "of nobody nothing");
    require(shares({200}, 64, processor, 1) == counts{64}, "one alone has all");
    require(shares({16, 16, 16}, 64, processor, 1) == counts{16, 16, 16}, "what fits is taken");
    require(shares({40, 40, 3}, 64, gpu, 1) == counts{31, 30, 3}, "else in turn, the first one first");
    require(shares({1, 1, 1, 1}, 2, processor, 1) == counts{1, 1, 0, 0}, "where not all can have one, too");

    // Ten and the large one's own: 4 + 11 = 15 s. A tenth and a bit more is 16 s, one sample more.
    require(shares(with_one_of(1000, 10), 64, processor, 1).back() == 2, "a large request costs what another does");
    require(shares(with_one_of(1000, 10), 64, gpu, 1).back() == 54, "and has the room that costs nothing");
    require(shares(with_one_of(1000, 70), 64, gpu, 1).back() == 0, "but after the others");
    counts four = with_one_of(1000, 10);
    four.insert(four.end(), 3, 1000);
    const counts given = shares(four, 64, processor, 1);
    // 4 + 14 = 18 s, and four fourteenths of that: 5 samples more.
    require(given[10] + given[11] + given[12] + given[13] == 9, "several of them have several shares");
    require(given[10] == 3 && given[13] == 2, "in turn");
    // The same where a sample has 100 numbers.
    require(shares(with_one_of(1000, 10), 64, learned(4, 0.01), 100).back() == 2, "a sample's size counts");
}

}  // namespace

int main() {
    pace_is_learned();
    shares_are_fair();
    std::puts("ok");
}
