"""README.md: the table and the picture that `make demo` ends with."""

import shutil
import subprocess

import page
from bespoke import ROOT


def write(work):
    shown = subprocess.run(["make", "demo"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = shown[shown.index("solver  ") :].splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("against"))
    page.replace("README.md", "demo", ["    " + line for line in lines[:end]])
    shutil.copy(ROOT / "demo/samples.png", ROOT / "docs/images/demo.png")
