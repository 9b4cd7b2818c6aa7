"""Tensors that the library cannot touch, as those of a GPU: here of the host, by the operations that a GPU's go through."""

import bespoke_solver as bespoke
import pytest
import torch
from bespoke_solver import BespokeScheduler, sampler
from bespoke_solver.device import TorchDevice
from test_diffusers import bent, noises
from test_solves import FLOW, VP, learned_ns, model_of


def field(t, x):
    """u_t(x) = cos(3 t) - (1 + t) x."""
    t = t.to(x.dtype)[:, None]
    return torch.cos(3 * t) - (1 + t) * x


def start(count=6, dtype=torch.float32):
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.fixture
def remote(monkeypatch):
    """Makes the samplers of what follows take the host's tensors for another device's; counts what that is asked for."""
    counts = {"combine": 0, "copy": 0, "allocate": 0}
    for name in counts:
        operation = getattr(TorchDevice, f"_{name}")

        def counted(self, *arguments, name=name, operation=operation):
            counts[name] += 1
            return operation(self, *arguments)

        monkeypatch.setattr(TorchDevice, f"_{name}", counted)

    def begin():
        monkeypatch.setattr(sampler, "device_of", lambda array: array.device)
        return counts

    return begin


THETAS = {"rk2": bent(3), "ns": learned_ns(6), "dpm++2m": bespoke.solver("dpm++2m", 7), "unipc": bespoke.solver("unipc", 7)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("theta", THETAS.values(), ids=THETAS)
def test_a_sampler_gives_what_it_gives_in_host_memory(theta, dtype, remote):
    x0, ends = start(dtype=dtype), []
    for _ in range(2):
        x, steps = bespoke.sample(theta, x0, field), x0.clone()
        by_steps = bespoke.Sampler(theta)
        for index in range(theta.steps):
            by_steps.step(index, steps, field)
        ends.append((x, steps))
        counts = remote()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-1}[dtype]
    for here, there in zip(*ends):
        assert there.dtype == dtype and (there - here).abs().max() < tolerance
    # An update and the times, twice: as a whole and by steps.
    assert counts["combine"] == 4 * theta.nfe
    assert torch.equal(x0, start(dtype=dtype))


def test_nothing_is_allocated_after_the_first_evaluation(remote):
    counts, own = remote(), bespoke.Sampler(THETAS["dpm++2m"])
    own.sample(start(), field)
    before = dict(counts)
    own.sample(start(), field)
    assert counts["allocate"] == before["allocate"] and counts["copy"] == before["copy"] + 2


def test_numbers_that_are_not_finite_are_told_when_asked_for(remote):
    for _ in range(2):
        own, x0 = bespoke.Sampler(THETAS["rk2"]), start(3)
        x0[1, 2] = torch.inf
        with pytest.raises(bespoke.BespokeError, match="the sampler holds no samples"):
            own.finite()
        own.start(x0)
        assert own.finite() == [True, False, True]
        remote()
    own.update(field(*own.query()))
    assert own.finite() == [True, False, True]


def test_samples_join_and_leave(remote):
    def ends():
        own, found, waiting, of_row = bespoke.Sampler(THETAS["rk2"]), {}, list(range(9)), []
        thetas = list(THETAS.values())
        while len(found) < 9:
            while waiting and len(of_row) < 3:
                of_row.append(waiting.pop(0))
                own.join(start(9)[of_row[-1]][None], thetas[of_row[-1] % 4])
                if len(of_row) == 2:
                    break
            if (asked := own.query()) is not None:
                own.update(field(*asked))
            for row in reversed(range(len(of_row))):
                at = own.row(row)
                if at.evaluations == at.nfe:
                    found[of_row[row]] = own.leave(row)
                    of_row[row] = of_row[-1]
                    of_row.pop()
        return torch.cat([found[i] for i in range(9)])

    here = ends()
    remote()
    assert (ends() - here).abs().max() < 1e-5


def test_what_is_wrong_is_named(remote):
    remote()
    own = bespoke.Sampler(THETAS["rk2"])
    with pytest.raises(TypeError, match="x0 is of dtype torch.int64, expected float32, float64, float16 or bfloat16"):
        own.start(torch.ones(2, 3, dtype=torch.int64))
    own.start(start())
    own.query()
    with pytest.raises(ValueError, match="u is on meta, expected cpu, the sampler's"):
        own.update(start().to("meta"))
    with pytest.raises(bespoke.InvalidArgumentError, match=r"u.shape is \[2, 3\], expected \[6, 3\]"):
        own.update(start(2))
    with pytest.raises(ZeroDivisionError):
        own.step(0, start(), lambda t, x: 1 / 0)
    with pytest.raises(ValueError, match=r"the velocity has shape \(1, 3\), expected \(6, 3\)"):
        own.step(0, start(), lambda t, x: x[:1])


def test_an_operation_that_fails_is_raised_as_itself(remote, monkeypatch):
    def out_of_memory(self, *arguments):
        raise torch.OutOfMemoryError("no memory left")

    remote()
    own = bespoke.Sampler(THETAS["rk2"])
    own.start(start())
    monkeypatch.setattr(TorchDevice, "_sum", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="no memory left"):
        own.query()


@pytest.mark.parametrize("solver", ["dpm++2m", "unipc", "heun", "euler"])
@pytest.mark.parametrize("own", [FLOW, VP], ids=["flow", "vp"])
def test_a_scheduler_carries_gradients_by_the_same_operations(own, solver, remote):
    counts = remote()
    scheduler = BespokeScheduler.from_config(own, solver=solver)
    ends = []
    for gradients in (False, True):
        scheduler.set_timesteps(8)
        model, x = model_of(scheduler), noises().requires_grad_(gradients)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t), t, x).prev_sample
        ends.append(x)
        assert counts["combine"] == (len(scheduler.timesteps) if gradients else 0)
    assert (ends[1] - ends[0]).abs().max() < 1e-5 * ends[0].abs().max()
    assert ends[1].requires_grad and not ends[0].requires_grad
