"""The C++ of the hosts, compiled over libbespoke.so as it lies in a build tree, or where BESPOKE_LIBRARY says."""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("BESPOKE_LIBRARY", ROOT / "target/release/libbespoke.so")).resolve()


def compiled(out, *given, libraries=(LIBRARY,)):
    """``out``, a program or with ``-shared`` a library, of sources and options, the later of which hold."""
    out = Path(out)
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include"]
    command += [*given, *libraries, "-Wl,-rpath,$ORIGIN", "-o", out]
    subprocess.run(list(map(str, command)), check=True)
    # Where they lie, libraries do not stand under the names that they go by: beside what needs them, they do.
    for library in libraries:
        said = subprocess.run(["objdump", "-p", library], check=True, stdout=subprocess.PIPE, text=True).stdout
        [name] = re.findall(r"SONAME +(\S+)", said)
        (out.parent / name).symlink_to(library)
    return out
