"""denoise_callback.hpp against k-diffusion's own samplers, and against what the program draws."""

import pytest
import torch
from bridge import DenoiseSolver, build
from compare import MODELS, by_k_diffusion, by_theta, classes_of, levels, rmse, rows, solved
from digits import Digits

torch.set_num_threads(1)
SMALL = ["--pool", "60", "--batch", "30", "--validation", "30", "--iterations", "10"]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def models():
    return {name: Digits.load(name) for name in MODELS}


@pytest.fixture(scope="session")
def noise():
    return torch.randn((20, 1, 8, 8), generator=torch.Generator().manual_seed(3))


def published(library, digits, name, nfe):
    return DenoiseSolver(library, name, digits.scheduler, nfe=nfe, flow=digits.flow)


@pytest.mark.parametrize("name", MODELS)
def test_ddim_is_k_diffusions_euler_on_the_same_levels(library, models, noise, name):
    digits = models[name]
    solver = published(library, digits, "ddim", 9)
    assert (solver.sigmas[:-1] > solver.sigmas[1:]).all()
    expected = by_k_diffusion(digits, "sample_euler", solver.sigmas, noise)
    assert (by_theta(digits, solver, noise) - expected).abs().max() < 2e-3
    assert [step for step, _ in solver.seen] == list(range(1, 10))
    assert torch.equal(torch.tensor([sigma for _, sigma in solver.seen]), solver.sigmas[:-1])


@pytest.mark.parametrize(("name", "nfe", "sampler"), [("dpm++2m", 10, "sample_dpmpp_2m"), ("edm", 17, "sample_heun")])
def test_solvers_of_higher_order_are_k_diffusions(library, models, noise, name, nfe, sampler):
    digits = models["digits-cosine"]
    # Behind a callback the path is the solver's alone: EDM's ends at level .002, from where theirs goes to 0.
    edm = Digits(digits.card, "edm", False, digits.model)
    solver = published(library, edm, name, nfe)
    begins = solver.sigmas[:-1] if name == "dpm++2m" else solver.sigmas[:-1:2]
    sigmas = torch.cat([begins, torch.zeros(1)])
    expected, euler = (by_k_diffusion(digits, other, sigmas, noise) for other in (sampler, "sample_euler"))
    assert rmse(by_theta(edm, solver, noise), expected) < 0.02 * rmse(euler, expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_theta_draws_what_the_program_draws_and_is_closer(library, models, noise, name, tmp_path):
    digits = models[name]
    found = rows(name, library, 8, noise, SMALL, tmp_path)
    assert all(found["theta"] < error for sampler, error in found.items() if sampler != "theta"), found
    solver = DenoiseSolver(library, tmp_path / f"{name}.json", digits.scheduler, flow=digits.flow)
    own = solved(digits.card, tmp_path / f"{name}.json", noise, tmp_path)
    assert rmse(by_theta(digits, solver, noise), own) < 0.05 * found["theta"]


def test_a_solve_begins_at_a_lower_level(library, models, noise):
    digits = models["digits-fm-ot"]
    solver = published(library, digits, "midpoint", 10)
    # Steps of two evaluations begin at .4, .2 and so on, and end evenly.
    assert [solver.first_below(sigma) for sigma in (1.0, 0.9, 0.5, 0.2)] == [0, 2, 6, 8]
    assert solver.first_below(0.1) == solver.nfe
    reached = {}

    def watched(x, sigma, **extra):
        reached[round(float(sigma[0]), 6)] = x
        return digits.model(x, sigma, **extra)

    whole = solver.sample(watched, noise, classes_of(noise))
    first = solver.first_below(0.5)
    half = solver.sample(digits.model, reached[0.4], classes_of(noise), first=first)
    assert (half - whole).abs().max() < 1e-5
    with pytest.raises(RuntimeError, match="begins"):
        solver.sample(digits.model, noise, classes_of(noise), first=1)


def test_what_goes_wrong_is_said(library, models, noise):
    digits = models["digits-fm-ot"]
    with pytest.raises(RuntimeError, match="absent.json"):
        DenoiseSolver(library, "absent.json", digits.scheduler)
    with pytest.raises(RuntimeError, match="scheduler"):
        published(library, Digits(digits.card, "sigmoid", True, digits.model), "ddim", 4)
    solver = published(library, digits, "ddim", 4)

    def fails(x, sigma, **extra):
        raise KeyError("of the model")

    with pytest.raises(KeyError, match="of the model"):
        solver.sample(fails, noise, classes_of(noise))
    assert len(levels(digits, solver, 6)) == 7
