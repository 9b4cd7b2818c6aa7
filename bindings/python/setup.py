"""Builds libbespoke without libtorch by cargo and puts it into the wheel; an sdist takes the crate along."""

import json
import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
#: In an sdist the crate lies beside this file, in a clone two folders up.
CRATE = HERE / "crate" if (HERE / "crate").is_dir() else HERE.parents[1]
#: What cargo needs of it.
CRATE_FILES = ["Cargo.toml", "Cargo.lock", "build.rs", "README.md", "LICENSE-MIT", "LICENSE-APACHE"]
CRATE_FOLDERS = ["src", "benches", "examples/train_models"]


def cargo(*arguments):
    return subprocess.run(
        [os.environ.get("CARGO", "cargo"), *arguments], cwd=CRATE, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def version():
    lines = (CRATE / "Cargo.toml").read_text(encoding="utf-8").splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version = "))


def build_library():
    """The shared library that cargo says it made."""
    built = cargo(
        "rustc", "--release", "--locked", "--no-default-features", "--features", "onnx", "--lib", "--crate-type", "cdylib",
        "--message-format", "json-render-diagnostics",
    )
    messages = [json.loads(line) for line in built.splitlines()]
    made = [m for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == "bespoke"]
    return next(Path(name) for name in made[-1]["filenames"] if name.endswith(".so"))


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        target = Path(self.build_lib) / "bespoke_solver" / "libbespoke.so"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(build_library(), target)
        if strip := shutil.which("strip"):
            subprocess.run([strip, "--strip-unneeded", str(target)], check=True)


class AnyPythonWheel(bdist_wheel):
    """The library is native, and no Python has a part in it."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class SdistWithCrate(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for name in CRATE_FILES:
            self.copy_file(str(CRATE / name), self._room(base_dir, name))
        for folder in CRATE_FOLDERS:
            for source in sorted((CRATE / folder).rglob("*")):
                if source.is_file():
                    self.copy_file(str(source), self._room(base_dir, str(source.relative_to(CRATE))))

    def _room(self, base_dir, name):
        target = Path(base_dir) / "crate" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return str(target)


setup(
    version=version(),
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": AnyPythonWheel, "sdist": SdistWithCrate},
)
