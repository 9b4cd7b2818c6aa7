"""bespoke_solver.lerobot on smolvla as LeRobot's package has it, and the control loop on its exported action expert."""

import copy
import pickle
import threading

import bespoke_solver as bespoke
import control
import pytest
import torch
from bespoke_solver import lerobot
from expert import export, kept_of, read_actions, write_observation
from lerobot.policies.rtc.configuration_rtc import RTCConfig
from measure import actions_of, euler, rmse
from reach import HORIZON, JOINTS, WIDTH, observations, policy_of, trained

torch.set_num_threads(1)
TRAINING = {"iterations": 16, "batch": 64, "pool": 64, "validation": 32, "atol": 1e-3, "rtol": 1e-3, "progress": False}


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A policy with some training, which tests leave as it is."""
    return trained(tmp_path_factory.mktemp("model"), iterations=60)


@pytest.fixture
def policy(shared):
    yield shared
    lerobot.uninstall(shared)
    assert "denoise_step" not in vars(shared.model) and shared.config.num_steps == 10


@pytest.fixture(scope="session")
def theta(shared):
    return lerobot.fit(shared, [observations(24, seed=1)], family="ns", nfe=4, **TRAINING)


def noise_of(count, seed=5):
    return torch.randn((count, HORIZON, WIDTH), generator=torch.Generator().manual_seed(seed))


def test_euler_as_a_theta_is_the_policys_own_loop(policy):
    batch, noise = observations(5, seed=2), noise_of(5)
    for steps in (1, 3, 10):
        found = actions_of(policy, batch, noise, bespoke.solver("euler", steps))
        assert found.shape == (5, HORIZON, JOINTS)
        assert (found - euler(policy, batch, noise, steps)).abs().max() < 1e-5


def test_a_learned_theta_is_closer_than_euler_and_published_solvers(policy, theta):
    batch, noise = observations(32, seed=2), noise_of(32)
    truth = actions_of(policy, batch, noise, bespoke.solver("rk4", 120))
    error = rmse(actions_of(policy, batch, noise, theta), truth)
    assert error < 0.5 * rmse(euler(policy, batch, noise, 4), truth)
    for name in ("midpoint", "ab2", "dpm++2m"):
        assert error < rmse(actions_of(policy, batch, noise, bespoke.solver(name, 4)), truth)


def test_select_action_runs_the_theta_once_a_chunk(policy, theta):
    asked = []
    own = type(policy.model).denoise_step

    def counted(model, **given):
        asked.append(float(given["timestep"][0]))
        return own(model, **given)

    lerobot.install(policy, theta)
    assert policy.config.num_steps == 4
    policy.reset()
    batch, noise = observations(1, seed=2), noise_of(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(policy.model), "denoise_step", counted)
        taken = torch.stack([policy.select_action(dict(batch), noise=noise.clone()) for _ in range(HORIZON)], 1)
    assert asked == pytest.approx([1 - stage.t for stage in theta.stages()], abs=1e-6)
    assert torch.allclose(taken, actions_of(policy, batch, noise, theta), atol=1e-6)


def test_a_copy_runs_on_its_own_weights_and_threads_side_by_side(policy, theta):
    lerobot.install(policy, theta)
    batch, noise = observations(3, seed=2), noise_of(3)
    before = policy.predict_action_chunk(dict(batch), noise=noise.clone())
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.model.action_out_proj.bias += 1
    assert torch.equal(policy.predict_action_chunk(dict(batch), noise=noise.clone()), before)
    assert (other.predict_action_chunk(dict(batch), noise=noise.clone()) - before).abs().max() > 0.1
    again = pickle.loads(pickle.dumps(policy))
    assert torch.equal(again.predict_action_chunk(dict(batch), noise=noise.clone()), before)

    found = {}

    def run(i):
        found[i] = policy.predict_action_chunk(dict(batch), noise=noise.clone())

    threads = [threading.Thread(target=run, args=[i]) for i in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(torch.allclose(found[i], before, atol=1e-6) for i in range(4))


def test_a_policy_gets_its_loop_back(policy, theta, tmp_path):
    batch, noise = observations(2, seed=2), noise_of(2)
    own = actions_of(policy, batch, noise)
    lerobot.install(policy, bespoke.solver("midpoint", 6))
    lerobot.install(policy, theta)
    policy.save_pretrained(tmp_path)
    lerobot.uninstall(policy)
    assert torch.equal(actions_of(policy, batch, noise), own)
    # What is saved meanwhile is the policy with as many Euler steps.
    assert '"num_steps": 4' in (tmp_path / "config.json").read_text()


def test_fit_takes_datasets_and_several_batches(policy, monkeypatch):
    batch = observations(20, seed=1)
    entries = [{key: value[i] for key, value in batch.items()} for i in range(20)]

    class Entries(torch.utils.data.Dataset):
        def __len__(self):
            return len(entries)

        def __getitem__(self, i):
            return {**entries[i], "task": "reach"}

    seen = []

    def preprocess(given):
        seen.append(len(given["task"]))
        return {key: value for key, value in given.items() if key != "task"}

    monkeypatch.setattr(lerobot, "train", lambda field, **options: field)
    field = lerobot.fit(policy, Entries(), preprocessor=preprocess, limit=18)
    assert seen == [16, 4] and field.classes == 18
    assert lerobot.fit(policy, observations(6, seed=1), limit=4).classes == 4
    field = lerobot.PolicyField(policy, [observations(3, seed=1), observations(2, seed=2)])
    assert field.classes == 5 and field.shape == (HORIZON, WIDTH)


def test_a_policy_may_compute_in_bfloat16(tmp_path):
    policy = policy_of(tmp_path)
    policy.model.vlm_with_expert.to(torch.bfloat16)
    field = lerobot.PolicyField(policy, [observations(3, seed=1)])
    assert field(torch.tensor([0.5]), noise_of(1), torch.tensor([1])).dtype == torch.float32
    batch, noise = observations(2, seed=2), noise_of(2)
    found = actions_of(policy, batch, noise, bespoke.solver("euler", 10))
    assert (found - actions_of(policy, batch, noise)).abs().max() < 0.1


def test_gradients_of_the_field_are_those_of_differences(policy):
    field = lerobot.PolicyField(policy, [observations(3, seed=1)])
    t, x, w = torch.tensor([0.2, 0.5, 0.9]), noise_of(3), noise_of(3, seed=6)
    classes = torch.tensor([2, 0, 1])
    by_x, by_t = field.vjp(t, x, classes, w)
    h, way = 1e-3, noise_of(3, seed=7)
    along = ((field(t, x + h * way, classes) - field(t, x - h * way, classes)) * w).flatten(1).sum(1) / (2 * h)
    assert torch.allclose((by_x * way).flatten(1).sum(1), along, rtol=2e-2, atol=2e-2)
    h = 1e-4  # the embedding of time turns within some thousandths
    later = ((field(t + h, x, classes) - field(t - h, x, classes)) * w).flatten(1).sum(1) / (2 * h)
    assert torch.allclose(by_t, later, rtol=3e-2, atol=1.0)


def test_other_loops_are_refused(policy, theta):
    lerobot.install(policy, theta)
    batch, noise = observations(2, seed=2), noise_of(2)
    for steps in (1, 3, 5):
        policy.config.num_steps = steps
        with pytest.raises(ValueError, match="steps"):
            policy.predict_action_chunk(dict(batch), noise=noise.clone())
    policy.config.num_steps = 4
    own, moved = type(policy.model).denoise_step, []

    def edited(model, **given):  # what a loop with a prefix does
        moved.append(given["x_t"])
        return own(model, **given)

    with pytest.raises(ValueError, match="x_t was changed"), pytest.MonkeyPatch.context() as patch:
        taken = policy.model.denoise_step

        def denoise_step(**given):
            return taken(**given) + 0.1

        patch.setattr(policy.model, "denoise_step", denoise_step)
        policy.predict_action_chunk(dict(batch), noise=noise.clone())
    with pytest.raises(ValueError, match="float32"):
        policy.model.sample_actions(*_prepared(policy, batch), noise=noise.double())
    with pytest.raises(ValueError, match="gradients"):
        policy.model.sample_actions(*_prepared(policy, batch), noise=noise.clone().requires_grad_())


def _prepared(policy, batch):
    images, masks = policy.prepare_images(batch)
    return images, masks, batch["observation.language.tokens"], batch["observation.language.attention_mask"], policy.prepare_state(batch)


def test_real_time_chunking_is_refused(policy, theta, monkeypatch):
    for config, message in ((RTCConfig(enabled=True), "rtc_config.enabled"), (RTCConfig(debug=True), "rtc_config.debug")):
        monkeypatch.setattr(policy.config, "rtc_config", config)
        policy.init_rtc_processor()
        for use in (lambda: lerobot.install(policy, theta), lambda: lerobot.fit(policy, observations(2, seed=1), **TRAINING)):
            with pytest.raises(ValueError, match=message):
                use()
    monkeypatch.setattr(policy.config, "rtc_config", None)
    policy.model.rtc_processor = policy.rtc_processor = None
    lerobot.install(policy, theta)
    monkeypatch.setattr(policy.config, "rtc_config", RTCConfig(enabled=True))
    with pytest.raises(ValueError, match="rtc_config.enabled"):
        policy.predict_action_chunk(observations(1, seed=2))


def test_what_is_not_understood_is_refused_by_name(policy, theta, monkeypatch):
    class Other(torch.nn.Module):
        name = "act"

    with pytest.raises(ValueError, match=r"Other \(act\).*pi0, pi05, smolvla"):
        lerobot.install(Other(), theta)
    with pytest.raises(TypeError, match=r"theta is str.*Theta\.load"):
        lerobot.install(policy, "theta.json")
    with pytest.raises(ValueError, match="'vp'"):
        lerobot.install(policy, bespoke.solver("dpm++2m", 4, "vp"))
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="compile_model"):
        patch.setattr(policy.config, "compile_model", True)
        lerobot.install(policy, theta)
    policy.model.denoise_step = print
    with pytest.raises(ValueError, match="denoise_step was replaced already"):
        lerobot.install(policy, theta)
    del policy.model.denoise_step
    lerobot.uninstall(Other())
    lerobot.install(policy, theta)
    with pytest.raises(ValueError, match="uninstall"):
        lerobot.fit(policy, observations(2, seed=1), **TRAINING)
    lerobot.uninstall(policy)
    for given, message in (([], "no batch"), ([1], "int"), ([{"a": torch.zeros(2), "b": torch.zeros(3)}], r"\[2, 3\]")):
        with pytest.raises(ValueError, match=message):
            lerobot.fit(policy, given, **TRAINING)
    with pytest.raises(ValueError, match="limit is 0"):
        lerobot.fit(policy, observations(2, seed=1), limit=0, **TRAINING)


def test_answers_that_depend_on_the_step_are_refused(policy, monkeypatch):
    own, calls = type(policy.model).denoise_step, []

    def denoise_step(model, **given):
        calls.append(1)
        return own(model, **given) * (1 + 0.1 * len(calls))

    monkeypatch.setattr(type(policy.model), "denoise_step", denoise_step)
    with pytest.raises(ValueError, match="smolvla, whose loop ends"):
        lerobot.fit(policy, observations(2, seed=1), **TRAINING)


def test_the_integrator_stands_for_euler_integrate(policy, theta):
    target = noise_of(2, seed=8)
    asked = []

    def denoise(x, timestep):
        asked.append(timestep)
        return x - target  # a straight way to the target

    integrate = lerobot.integrator(bespoke.solver("euler", 5))
    assert torch.allclose(integrate(denoise, noise_of(2), 5), _straight(noise_of(2), target, 5), atol=1e-6)
    assert all(timestep.shape == (2,) for timestep in asked)
    for given, message in (
        ({"rtc_enabled": True}, "rtc_config.enabled"),
        ({"hard_prefix": target}, "hard_prefix"),
        ({"prev_chunk_left_over": target}, "prev_chunk_left_over"),
    ):
        with pytest.raises(ValueError, match=message):
            integrate(denoise, noise_of(2), 5, **given)
    with pytest.raises(ValueError, match="num_steps is 10"):
        integrate(denoise, noise_of(2), 10)


def _straight(x, target, steps):
    for _ in range(steps):
        x = x - (x - target) / steps
    return x


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    return control.build(tmp_path_factory.mktemp("control"))


def test_a_loop_with_a_network_of_its_own_never_allocates_or_waits(program, theta, tmp_path):
    theta.save(tmp_path / "theta.json")
    found = control.run(program, tmp_path / "theta.json")
    assert (found["steps"], found["chunks"], found["evaluations"]) == (10000, 2500, 4)
    assert (found["beside"], found["inside"], found["waits"], found["callers"]) == (0, 0, 0, {})
    assert 0 < found["median"] <= found["most"] <= found["worst"]


@pytest.mark.parametrize(("runtime", "layers"), [("onnx", 4), ("pt2", 1)])  # a package is compiled, layer by layer
def test_the_exported_expert_in_the_control_loop_is_the_policy(program, theta, tmp_path, runtime, layers):
    policy = policy_of(tmp_path / "model", layers=layers)
    batch, noise = observations(2, seed=4), noise_of(1, seed=9)
    kept = kept_of(policy, batch)
    card = export(policy, tmp_path / "expert.json", kept, runtime)
    write_observation(tmp_path / "seen", kept, noise[0])
    theta.save(tmp_path / "theta.json")
    found = control.run(program, tmp_path / "theta.json", card, tmp_path / "seen", "--steps", 400)
    first = {key: value[:1] for key, value in batch.items()}
    expected = actions_of(policy, first, noise, theta)[0]
    assert (read_actions(tmp_path / "seen", (HORIZON, WIDTH))[:, :JOINTS] - expected).abs().max() < 1e-4
    assert found["chunks"] == 100 and found["beside"] == 0
    assert found["inside"] == sum(found["callers"].values())


def test_the_control_loop_says_what_it_cannot_read(program, theta, tmp_path):
    theta.save(tmp_path / "theta.json")
    with pytest.raises(RuntimeError, match="usage"):
        control.run(program)
    with pytest.raises(RuntimeError, match=r"gone\.json"):
        control.run(program, tmp_path / "gone.json")
    for steps in ("0", "-1", "10x", "1e4", "100000000"):
        with pytest.raises(RuntimeError, match=f"--steps is {steps}, expected 1 to"):
            control.run(program, tmp_path / "theta.json", "--steps", steps)


@pytest.mark.parametrize(
    ("described", "said"),
    [
        (None, "observation.txt: cannot be read"),
        ("mask bool 3\nkey float32 2 4", "describes 35 bytes, but there are 39"),
        ("mask bool 3\nkey float32 2 5", 'has "key float32 2 5", expected sizes of no more than the 36 bytes that are left'),
        ("mask bool 3\nkey float32 9\nother float32", 'has "other float32", expected .* 0 bytes'),
        ("mask bool 3\nkey float32 4\nkey float32 5", "has key twice"),
        ("mask bool 3\nkey float32 3x3", 'has "key float32 3x3", expected sizes'),
        ("mask bool 3\nkey float16 9", "key is of dtype float16, expected bool or float32"),
        ("mask bool 3\nkey float32 -9", 'has "key float32 -9", expected sizes'),
    ],
)
def test_an_observation_that_is_none_is_refused(program, theta, tmp_path, described, said):
    theta.save(tmp_path / "theta.json")
    (tmp_path / "observation.raw").write_bytes(bytes(39))
    if described is None:
        (tmp_path / "observation.txt").mkdir()
    else:
        (tmp_path / "observation.txt").write_text(described, encoding="utf-8")
    with pytest.raises(RuntimeError, match=said):
        control.run(program, tmp_path / "theta.json", tmp_path / "expert.json", tmp_path)


def test_random_weights_do_as_well(tmp_path):
    policy = policy_of(tmp_path)
    batch, noise = observations(2, seed=2), noise_of(2)
    found = actions_of(policy, batch, noise, bespoke.solver("euler", 10))
    assert (found - actions_of(policy, batch, noise)).abs().max() < 1e-5
