import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))


@pytest.fixture(scope="session")
def pipelines():
    """A pipeline of each kind, with diffusers' own scheduler."""
    import torch
    from digits import pipeline_of

    torch.set_num_threads(1)
    return {kind: pipeline_of(kind, iterations=120) for kind in ("flow", "vp")}
