import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))


def pytest_addoption(parser):
    parser.addoption("--fake-gpu", action="store_true", help="BespokeScheduler takes tensors for those of a GPU (fake_gpu.py)")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--fake-gpu"):
        items[:] = [item for item in items if item.get_closest_marker("host_memory") is None]


@pytest.fixture(scope="session", autouse=True)
def fake_gpu(request, tmp_path_factory):
    """With ``--fake-gpu`` all tests that carry no gradients go by a GPU's operations."""
    if not request.config.getoption("--fake-gpu"):
        yield
        return
    from fake_gpu import build, counts, taken_for_a_gpus

    library = build(tmp_path_factory.mktemp("gpu"))
    with taken_for_a_gpus(library):
        yield
    assert counts(library)["launches"] > 0


@pytest.fixture(scope="session")
def pipelines():
    """A pipeline of each kind, with diffusers' own scheduler."""
    import torch
    from digits import pipeline_of

    torch.set_num_threads(1)
    return {kind: pipeline_of(kind, iterations=120) for kind in ("flow", "vp")}
