"""Puts libbespoke into the wheel: built by cargo, without libtorch."""

import json
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "bespoke_solver/libbespoke.so"
CUDA = "bespoke_solver/libbespoke_cuda.so"


def build_library(crate):
    """The shared library that cargo says it made."""
    command = [
        os.environ.get("CARGO", "cargo"), "rustc", "--release", "--locked", "--no-default-features", "--features", "onnx", "--lib",
        "--crate-type", "cdylib", "--message-format", "json-render-diagnostics", "--", "-C", "strip=symbols",
    ]  # fmt: skip
    built = subprocess.run(command, cwd=crate, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in built.splitlines()]
    made = [m for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == "bespoke"]
    return next(name for name in made[-1]["filenames"] if name.endswith(".so"))


class LibraryHook(BuildHookInterface):
    """``BESPOKE_WHEEL_LIBRARY`` names a library that was built before, as that of a release is. ``BESPOKE_WHEEL_CUDA`` names the
    GPU's operations (``make cuda``), which go beside it; without it a GPU's samples go by torch's operations.
    """

    def initialize(self, version, build_data):
        library = os.environ.get("BESPOKE_WHEEL_LIBRARY") or build_library(self.root)
        if version == "editable":
            shutil.copyfile(library, Path(self.root, "bindings/python/src", NAME))
        # Native, and no Python has a part in it.
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][library] = NAME
        if cuda := os.environ.get("BESPOKE_WHEEL_CUDA"):
            build_data["force_include"][cuda] = CUDA
