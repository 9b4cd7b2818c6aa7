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
    return {kind: pipeline_of(kind, iterations=150) for kind in ("flow", "vp")}


@pytest.fixture(scope="session")
def thetas(pipelines):
    """A briefly trained theta for each pipeline, rk2 with three steps, at guidance 2."""
    import bespoke_solver as bespoke
    from bespoke_solver.fitting import field_of
    from digits import conditions

    settings = {"steps": 3, "iterations": 4, "batch": 60, "pool": 160, "validation": 60, "progress": False}
    fields = {kind: field_of(p, guidance_scale=2.0, **conditions()) for kind, p in pipelines.items()}
    return {kind: bespoke.train(field, rtol=1e-3, atol=1e-3, **settings) for kind, field in fields.items()}
