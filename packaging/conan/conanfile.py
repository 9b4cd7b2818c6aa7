"""libbespoke without libtorch, built by cargo: `conan create packaging/conan`."""

import re
from pathlib import Path

from conan import ConanFile
from conan.errors import ConanInvalidConfiguration
from conan.tools.files import copy

#: What cargo builds the library of.
SOURCES = ("Cargo.lock", "Cargo.toml", "LICENSE-*", "LICENSES-OF-DEPENDENCIES.md", "README.md", "build.rs", "benches/*",
           "bindings/cuda/*", "examples/train_models/*", "fuzz/Cargo.toml", "include/*", "src/*", "tests/Cargo.toml")  # fmt: skip


class Bespoke(ConanFile):
    name = "bespoke"
    description = "Learned few-step solvers for flow and diffusion models"
    license = "MIT OR Apache-2.0"
    topics = ("diffusion", "flow-matching", "ode", "sampling")
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False]}
    default_options = {"shared": True}
    package_type = "library"

    @property
    def _clone(self):
        return Path(self.recipe_folder).parents[1]

    def set_version(self):
        manifest = (self._clone / "Cargo.toml").read_text(encoding="utf-8")
        self.version = re.search(r'^version = "(.+)"', manifest, re.MULTILINE)[1]

    def export_sources(self):
        for pattern in SOURCES:
            copy(self, pattern, str(self._clone), self.export_sources_folder)

    def validate(self):
        if self.settings.os != "Linux":
            raise ConanInvalidConfiguration("libbespoke is built for Linux")

    def package_id(self):
        # Plain C outside, and one profile inside.
        del self.info.settings.compiler
        del self.info.settings.build_type

    def build(self):
        kind = "cdylib" if self.options.shared else "staticlib"
        self.run(
            "cargo rustc --release --locked --no-default-features --features onnx --lib "
            f'--crate-type {kind} --target-dir "{self.build_folder}/target"',
            cwd=self.source_folder,
        )

    def package(self):
        built, lib = f"{self.build_folder}/target/release", Path(self.package_folder, "lib")
        copy(self, "bespoke.h*", f"{self.source_folder}/include", f"{self.package_folder}/include")
        copy(self, "bespoke_cuda.*", f"{self.source_folder}/bindings/cuda", f"{self.package_folder}/include")
        copy(self, "LICENSE*", self.source_folder, f"{self.package_folder}/licenses")
        if not self.options.shared:
            copy(self, "libbespoke.a", built, str(lib))
            return
        copy(self, "libbespoke.so", built, str(lib))
        major, minor = self.version.split(".")[:2]
        abi = f"0.{minor}" if major == "0" else major
        (lib / "libbespoke.so").rename(lib / f"libbespoke.so.{self.version}")
        (lib / f"libbespoke.so.{abi}").symlink_to(f"libbespoke.so.{self.version}")
        (lib / "libbespoke.so").symlink_to(f"libbespoke.so.{self.version}")

    def package_info(self):
        self.cpp_info.libs = ["bespoke"]
        self.cpp_info.set_property("cmake_file_name", "bespoke")
        self.cpp_info.set_property("cmake_target_name", "bespoke::bespoke")
        self.cpp_info.set_property("pkg_config_name", "bespoke")
        if not self.options.shared:
            self.cpp_info.system_libs = ["gcc_s", "util", "rt", "pthread", "m", "dl", "c"]
