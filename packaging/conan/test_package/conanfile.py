"""A program in C and one in C++ that load a theta by what the package installed."""

from pathlib import Path

from conan import ConanFile
from conan.tools.build import can_run
from conan.tools.cmake import CMake, cmake_layout


class Uses(ConanFile):
    settings = "os", "arch", "compiler", "build_type"
    generators = "CMakeDeps", "CMakeToolchain", "VirtualRunEnv"

    def requirements(self):
        self.requires(self.tested_reference_str)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def test(self):
        if can_run(self):
            theta = Path(self.source_folder, "theta.json")
            for program in ("from_c", "from_cpp"):
                self.run(f'{Path(self.build_folder, self.cpp.build.bindir, program)} "{theta}"', env="conanrun")
