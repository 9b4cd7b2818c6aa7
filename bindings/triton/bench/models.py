"""The models that the benchmark compares, as a repository."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.append(str(ROOT / "bindings" / "triton" / "tests"))
sys.path.append(str(ROOT / "examples" / "triton"))

from repository import MODELS, Repository  # noqa: E402

NFE = 8


def build():
    """own: source (a); served: source (b); loop: the same solve as a Python BLS model; whole: without continuous batching."""
    repository = Repository()
    for name, extra in (("own", {}), ("whole", {"batching": "whole"})):
        repository.add_digits(name, {"max_rows": 64, **extra})
    examples = ROOT / "examples" / "triton" / "models"
    shutil.copytree(examples / "digits-served", repository.folder / "digits-served")
    shutil.copy(repository.files / "theta.json", repository.folder / "digits-served" / "1")
    shutil.copytree(examples / "digits-network", repository.folder / "digits-network")
    for file in ("digits-fm-ot.json", "digits-fm-ot.pt"):
        shutil.copy(MODELS / file, repository.folder / "digits-network" / "1")
    shutil.copytree(HERE / "loop", repository.folder / "loop")
    return repository
