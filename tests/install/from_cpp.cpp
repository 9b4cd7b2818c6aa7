#include <bespoke.hpp>
#include <iostream>

int main(int count, char **arguments) {
    if (count != 2) return 2;
    const auto theta = bespoke::theta::load(arguments[1]);
    std::cout << bespoke::version() << ' ' << theta.info().family << ' ' << theta.nfe() << '\n';
}
