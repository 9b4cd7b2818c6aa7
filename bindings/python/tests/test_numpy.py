"""The package with numpy alone."""

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import bespoke_solver as bespoke
import numpy as np
import pytest
from bespoke_solver._arrays import stored

ROOT = Path(__file__).resolve().parents[3]


def field(t, x):
    """u_t(x) = cos(3 t) - (1 + t) x."""
    return (np.cos(3 * t)[:, None] - (1 + t)[:, None] * x).astype(x.dtype)


def vjp(t, x, w):
    return -(1 + t)[:, None] * w, (w * (-3 * np.sin(3 * t)[:, None] - x)).sum(1)


def noise(count=6, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((count, 3)).astype(dtype)


def learned(**options):
    settings = {"steps": 3, "iterations": 8, "pool": 200, "batch": 100, "validation": 100, "progress": False}
    return bespoke.train(field, vjp=vjp, shape=[3], **{**settings, **options})


def by_scalars(theta, x0):
    """The solve as `Stage` describes it."""
    registers, point = {0: x0}, 0

    def combine(c, u):
        return c.velocity * u + sum(a * registers[r] for r, a in zip(c.registers, c.coefficients))

    for stage in theta.stages():
        u = field(np.full(len(x0), stage.t, x0.dtype), registers[point])
        written = {c.target: combine(c, u) for c in (stage.next, stage.kept) if c is not None}
        registers.update(written)
        point = stage.next.target
    return registers[point]


@pytest.mark.parametrize("name", ["euler", "midpoint", "dpm++2m", "unipc"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_loop_is_what_the_scalars_say(name, dtype):
    theta = bespoke.solver(name, 8, {"name": "vp", "end": 0.99})
    x0 = noise(dtype=dtype)
    x1 = bespoke.sample(theta, x0, field)
    assert x1.dtype == dtype and x1.shape == x0.shape
    tolerance = {2: 2e-2, 4: 1e-5, 8: 1e-6}[np.dtype(dtype).itemsize]
    np.testing.assert_allclose(x1, by_scalars(theta, x0.astype(np.float64)), atol=tolerance)


def test_query_and_update_share_memory_with_the_sampler():
    sampler = bespoke.Sampler(bespoke.solver("midpoint", 4))
    x0 = noise()
    sampler.start(x0)
    t, x = sampler.query()
    np.testing.assert_array_equal(x, x0)
    assert t.dtype == np.float32 and t.shape == (6,)
    _, again = sampler.query()
    assert again.ctypes.data == x.ctypes.data
    with pytest.raises(bespoke.InvalidArgumentError, match="the sampler's own memory"):
        sampler.update(x)
    # A transposed velocity is read where it lies.
    sampler.update(np.asfortranarray(field(t, x)))
    alive = weakref.ref(sampler)
    del sampler
    gc.collect()
    assert alive() is not None, "its memory is still looked at"
    del t, x, again, _
    gc.collect()
    assert alive() is None


def test_what_a_call_is_given_lives_as_long_as_the_call():
    from bespoke_solver._arrays import Borrowed

    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    before = sys.getrefcount(array)
    tensor = Borrowed("x", array).tensor
    gc.collect()
    # The description alone keeps what it describes, and nothing keeps it for longer.
    assert sys.getrefcount(array) > before
    assert tuple(tensor.shape[: tensor.ndim]) == (2, 3) and tensor.data == array.ctypes.data
    del tensor
    assert sys.getrefcount(array) == before


def test_threads_solve_side_by_side_while_others_collect():
    theta = bespoke.solver("midpoint", 8, {"name": "fm-ot"})
    x0 = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    expected, found = bespoke.sample(theta, x0, lambda t, x: -x), []

    def velocity(t, x):
        gc.collect()
        return -x

    threads = [threading.Thread(target=lambda: found.append(bespoke.sample(theta, x0, velocity))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(threads) and all(np.array_equal(one, expected) for one in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_fork_computes_with_threads_of_its_own():
    theta = bespoke.solver("midpoint", 8, {"name": "fm-ot"})
    x0 = np.random.default_rng(0).normal(size=(4, 1 << 16)).astype(np.float32)
    sampler = bespoke.Sampler(theta, threads=3)
    expected = sampler.sample(x0, lambda t, x: -x)
    child = os.fork()
    if child == 0:
        # Threads that are not there would be waited for without an end.
        signal.alarm(120)
        os._exit(0 if np.array_equal(sampler.sample(x0, lambda t, x: -x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert np.array_equal(sampler.sample(x0, lambda t, x: -x), expected)


def test_samples_join_and_leave():
    slow, fast = bespoke.solver("midpoint", 8), bespoke.solver("euler", 2)
    sampler = bespoke.Sampler(slow)
    x0 = noise()
    sampler.start(x0[:2])
    sampler.update(field(*sampler.query()))
    sampler.join(x0[2:3], fast)
    assert len(sampler) == 3
    for _ in range(2):
        sampler.update(field(*sampler.query()))
    assert sampler.row(2) == bespoke.Row(2, 2, False)
    left = sampler.leave(2)
    np.testing.assert_array_equal(left, bespoke.sample(fast, x0[2:3], field))
    while (asked := sampler.query()) is not None:
        sampler.update(field(*asked))
    np.testing.assert_array_equal(sampler.finish(), bespoke.sample(slow, x0[:2], field))


@pytest.mark.parametrize("given", [{}, {"vjp": None, "iterations": 100_000_000}])
def test_an_interrupt_comes_out_of_training_as_one_always(given):
    """At 200 moments in all, in every part of a run: before a callback's guard, within it, and after it."""
    handler = signal.getsignal(signal.SIGINT)
    for run in range(100):
        moment = 0.002 + 0.0003 * run
        timer = threading.Timer(moment, os.kill, (os.getpid(), signal.SIGINT))
        options = {"iterations": 100_000_000, "pool": 40, "batch": 20, "validation": 20, **given}
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                if "vjp" in given:
                    bespoke.train(field, shape=[3], steps=2, progress=False, **options)
                else:
                    learned(**options)
        timer.join()
        assert signal.getsignal(signal.SIGINT) is handler


def test_what_a_signals_handler_raises_comes_out_of_a_step_and_the_state_stays():
    theta = bespoke.solver("euler", 4)
    x = noise()
    before = x.copy()

    def velocity(t, state):
        os.kill(os.getpid(), signal.SIGUSR1)
        return field(t, state)

    def handle(number, frame):
        raise RuntimeError(f"signal {number}")

    earlier = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(RuntimeError, match="signal"):
            bespoke.step(theta, 0, x, velocity)
        assert signal.getsignal(signal.SIGUSR1) is handle
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    np.testing.assert_array_equal(x, before)


def test_a_number_that_is_not_finite_is_named_where_it_comes_from():
    scheduler = {"name": "vp", "beta_min": 0.1, "beta_max": float("inf")}
    with pytest.raises(ValueError, match="scheduler.beta_max is inf, expected a finite number"):
        bespoke.solver("dpm++2m", 8, scheduler)
    with pytest.raises(ValueError, match=r"field.data_range\[1\] is nan"):
        learned(data_range=(-1.0, float("nan")))
    text = json.dumps(scheduler)
    with pytest.raises(bespoke.InvalidArgumentError, match="beta_max: is Infinity, expected a finite number"):
        bespoke.solver("dpm++2m", 8, text)


def test_steps_in_place_and_what_a_velocity_raises():
    theta = learned()
    x = noise()
    for index in range(theta.steps):
        bespoke.step(theta, index, x, field)
    np.testing.assert_array_equal(x, bespoke.sample(theta, noise(), field))
    before = x.copy()

    def failing(t, x):
        raise KeyError("no such model")

    with pytest.raises(KeyError, match="no such model"):
        bespoke.step(theta, 0, x, failing)
    with pytest.raises(ValueError, match=r"the velocity has shape \(6, 2\), expected \(6, 3\)"):
        bespoke.step(theta, 0, x, lambda t, x: x[:, :2])
    with pytest.raises(bespoke.NonFiniteError, match="evaluation 0"):
        bespoke.step(theta, 0, x, lambda t, x: x * np.nan)
    np.testing.assert_array_equal(x, before)
    x.flags.writeable = False
    with pytest.raises(TypeError, match="x is read-only"):
        bespoke.step(theta, 0, x, field)
    # What is only read may be read-only.
    np.testing.assert_array_equal(bespoke.sample(theta, x, field), bespoke.sample(theta, before, field))


def test_messages_name_what_is_wrong():
    with pytest.raises(bespoke.InvalidArgumentError, match="midpont") as caught:
        bespoke.solver("midpont", 10)
    assert caught.value.status == "BESPOKE_ERROR_INVALID" and isinstance(caught.value, ValueError)
    with pytest.raises(bespoke.FormatError, match="stepz"):
        learned(stepz=3)
    with pytest.raises(bespoke.BespokeError, match="missing.json"):
        bespoke.Theta.load("missing.json")
    sampler = bespoke.Sampler(bespoke.solver("euler", 2))
    with pytest.raises(bespoke.BespokeError, match="no samples"):
        sampler.query()
    with pytest.raises(TypeError, match="x0 is list"):
        sampler.start([1.0])
    with pytest.raises(bespoke.InvalidArgumentError, match="x0.dtype"):
        sampler.start(np.zeros((2, 3), np.int32))


def test_files_round_trip(tmp_path):
    theta = learned()
    path = tmp_path / "theta.json"
    theta.save(path)
    loaded = bespoke.Theta.load(path)
    assert loaded == theta and loaded.document == json.loads(path.read_text())
    assert pickle.loads(pickle.dumps(theta)) == theta and hash(loaded) == hash(theta)
    assert bespoke.Theta.parse(theta.document).stages() == theta.stages()
    ladder = tmp_path / "ladder.json"
    rungs = [learned(steps=2).document, theta.document]
    ladder.write_text(json.dumps({"format": "bespoke-ladder", "version": 1, "rungs": rungs}))
    assert bespoke.Theta.load(ladder, 5).nfe == 4
    assert [rung.nfe for rung in bespoke.Theta.load_all(ladder)] == [4, 6]
    assert bespoke.Theta.load_all(path) == [theta]
    shown = theta.show()
    assert "rk2, 3 steps, 6 evaluations" in shown and f"{theta.document['s'][1]:.6f}" in shown


def test_training_by_derivatives_and_by_differences():
    exact = learned(iterations=20)
    assert exact.training["validation"]["rmse"] < 0.2 * exact.training["start"]["rmse"]
    assert exact.training["evaluations"]["backward"] > 0
    forward = bespoke.train(
        field, shape=[3], steps=3, iterations=20, pool=200, validation=100, progress=False, name="cosine"
    )
    assert forward.training["validation"]["rmse"] < 0.2 * forward.training["start"]["rmse"]
    assert forward.training["evaluations"]["backward"] == 0 and forward.training["optimizer"] == "forward-gauss-newton"
    assert forward.model["name"] == "cosine"
    assert learned() == learned()


def test_what_training_warns_of_is_a_warning():
    def leaky(t, x):
        return field(t, x) + 0.01 * x[:1]

    options = {"shape": [3], "steps": 2, "pool": 60, "validation": 20, "iterations": 1, "progress": False}
    with pytest.warns(RuntimeWarning, match="depends on the batch a sample is in"):
        theta = bespoke.train(leaky, **options)
    assert theta.training["warnings"]


def test_training_with_classes_tells_how_far_it_is_and_can_be_stopped():
    seen = []

    def conditional(t, x, classes):
        assert classes.dtype == np.int64 and set(classes.tolist()) <= {0, 1}
        return field(t, x) * (1 + classes)[:, None].astype(np.float32)

    def observe(progress):
        seen.append(progress)
        return progress.iteration == 3

    theta = bespoke.train(
        conditional, shape=[3], classes=2, steps=2, iterations=50, pool=100, validation=50, progress=observe
    )
    assert [p.iteration for p in seen] == [0, 1, 2, 3] and theta.training["stopped"]
    assert seen[0].iterations == 50 and seen[-1].best_rmse <= seen[0].validation_rmse
    with pytest.raises(ZeroDivisionError):
        learned(progress=lambda p: 1 / 0)
    with pytest.raises(KeyError, match="vjp"):
        bespoke.train(field, vjp=lambda t, x, w: {}["vjp"], shape=[3], progress=False)
    with pytest.raises(bespoke.NonFiniteError, match="evaluation 0"):
        bespoke.train(lambda t, x: np.full_like(x, np.nan), shape=[3], progress=False)


def test_training_over_named_conditions_is_that_over_classes_which_look_them_up():
    rng = np.random.default_rng(3)
    given = {"gain": rng.uniform(0.5, 2, 5).astype(np.float32), "goal": rng.standard_normal((5, 3)).astype(np.float32)}

    def conditional(t, x, gain, goal):
        return (goal - x) * gain[:, None] * (1 + t[:, None])

    def pull_back(t, x, w, gain, goal):
        slope = -gain[:, None] * (1 + t[:, None])
        return w * slope, (w * (goal - x) * gain[:, None]).sum(1)

    def of_class(t, x, classes):
        return conditional(t, x, given["gain"][classes], given["goal"][classes])

    def pull_back_of_class(t, x, classes, w):
        return pull_back(t, x, w, given["gain"][classes], given["goal"][classes])

    options = {"shape": [3], "steps": 2, "iterations": 6, "pool": 60, "batch": 30, "validation": 40, "progress": False}
    for vjps in ({}, {"vjp": pull_back}):
        named = bespoke.train(conditional, conditions=given, **vjps, **options)
        looked_up = bespoke.train(of_class, classes=5, **({"vjp": pull_back_of_class} if vjps else {}), **options)
        assert named.document["t"] == looked_up.document["t"]
        assert (named.training["evaluations"]["backward"] > 0) == bool(vjps)
    for wrong, message in [
        ({"gain": np.ones(5), "goal": np.ones((4, 3))}, r"conditions\['goal'\] has 4 rows, expected 5"),
        ({"gain": np.ones(0)}, "at least one"),
        ({}, "no rows"),
    ]:
        with pytest.raises(ValueError, match=message):
            bespoke.train(conditional, conditions=wrong, **options)
    with pytest.raises(ValueError, match="classes and conditions"):
        bespoke.train(conditional, classes=2, conditions=given, **options)
    with pytest.raises(TypeError, match="mapping"):
        bespoke.train(conditional, conditions=["a.safetensors"], **options)
    with pytest.raises(TypeError, match="gain"):
        bespoke.train(lambda t, x, goal: x, conditions=given, **options)


def test_arrays_for_a_model_become_a_file_of_conditions():
    rows = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {
        "wide": rows.transpose(0, 2, 1), "half": rows[:, ::2, 1].astype(np.float16), "one": np.array([1, 2]),
        "yes": np.array([[True], [False]]), "back": rows[:, 0, ::-1],
    }  # fmt: skip
    content = stored(arrays)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    assert size % 8 == 0 and [header[name]["dtype"] for name in arrays] == ["F32", "F16", "I64", "BOOL", "F32"]
    for name, array in arrays.items():
        begin, end = header[name]["data_offsets"]
        found = np.frombuffer(content[8 + size :][begin:end], array.dtype).reshape(header[name]["shape"])
        assert np.array_equal(found, array), name
    with pytest.raises(TypeError, match="complex"):
        stored({"a": np.zeros(2, np.complex64)})
    # They are held against the card.
    card = ROOT / "models" / "digits-mixture.json"
    with pytest.raises(bespoke.BespokeError, match="inputs.wide: is there"):
        bespoke.train(model=str(card), conditions={"wide": rows}, progress=False)
    with pytest.raises(bespoke.BespokeError, match="absent.safetensors"):
        bespoke.train(model=str(card), conditions=["absent.safetensors"], progress=False)


def test_native_work_leaves_the_gil():
    sampler = bespoke.Sampler(bespoke.solver("euler", 1))
    x0 = np.zeros((1, 30_000_000), np.float32)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    sampler.start(x0)
    end = time.perf_counter()
    stop.set()
    thread.join()
    assert any(begin < at < end for at in ticks)


def test_neither_torch_nor_diffusers_is_imported():
    code = "import bespoke_solver, sys; print(sorted({'torch', 'diffusers', 'jax', 'tqdm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        _ = bespoke.BespokeSchedule
