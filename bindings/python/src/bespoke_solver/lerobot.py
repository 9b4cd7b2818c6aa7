"""Flow-matching policies of LeRobot with a learned solver in place of their Euler loop.

pi0, pi05 and smolvla make a chunk of actions from noise by one loop: ``sample_actions`` of their model runs the
observation once, keeps its keys and values, and asks ``denoise_step`` for the velocity at times from 1, noise, to 0,
actions, as often as the configuration says. `fit` learns a theta from those answers, `install` runs it in that loop:

    theta = fit(policy, dataset, preprocessor=preprocess, family="rk2", nfe=4)
    install(policy, theta)
    policy.select_action(observation)           # the policy's own, with four evaluations a chunk

Nothing of LeRobot is imported: what a policy must have is looked at, and what is not understood is refused by name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from .field import TorchField
from .sampler import Sampler
from .theta import Theta
from .theta import solver as published
from .training import Observer, train

#: The policies whose loop this is, by the names that LeRobot gives them, and what their configurations call its steps.
POLICIES = {"pi0": "num_inference_steps", "pi05": "num_inference_steps", "smolvla": "num_steps"}
#: What of a model a theta takes the place of.
_METHODS = ("sample_actions", "denoise_step")
#: The model's path: x = (1 - t) noise + t actions in the library's time, 1 - t in the policy's.
_PATH = "fm-ot"
#: How far numbers that ought to be the same may lie apart, as a part of the largest, by what the policy computes in.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
#: As of times.
_TIME_TOLERANCE = 1e-5

Batch = Mapping[str, Any]
"""What a policy's ``predict_action_chunk`` is given: tensors ``[batch, ...]``, and texts."""


def fit(
    policy: Any,
    observations: Batch | Iterable[Batch] | torch.utils.data.Dataset[Any],
    *,
    preprocessor: Callable[[Any], Batch] | None = None,
    limit: int = 64,
    autograd: bool = True,
    max_batch: int | None = None,
    data_range: tuple[float, float] = (-1.0, 1.0),
    progress: bool | Observer = True,
    **options: Any,
) -> Theta:
    """Learns a solver for ``policy`` on ``observations``; `install` runs it.

    The policy's own ``predict_action_chunk`` is run once on every batch, with its own loop. What its model keeps of the
    observations is kept, and its ``denoise_step`` is what is learned from. Before training, the end of the policy's loop
    is compared with that of the same Euler steps on the field that is learned from. The policy is left as it is.

    Args:
        policy: pi0, pi05 or smolvla, of LeRobot 0.4 to 0.6, without a theta installed.
        observations: A batch as ``predict_action_chunk`` takes it, several of them, such as a DataLoader, or a dataset
            (LeRobotDataset), of which ``limit`` entries are drawn.
        preprocessor: What is made of a batch before the policy is given it (``make_pre_post_processors``).
        limit: Of how many observations at most.
        autograd: Whether training takes gradients; else forward passes alone.
        max_batch: Samples given to the policy at once, at most.
        data_range: Least and greatest normalized action, for PSNR.
        progress: See `train`.
        options: Keys of a training configuration: ``family``, ``steps`` or ``nfe``, ``iterations``, ``pool``, ....

    Raises:
        ValueError: The policy, its configuration or an observation is none that can be learned from; it is named.
    """
    field = PolicyField(
        policy,
        _batches(observations, preprocessor, limit),
        autograd=autograd,
        max_batch=max_batch,
        data_range=data_range,
    )
    return train(field, progress=progress, **options)


def install(policy: Any, theta: Theta) -> None:
    """Has the policy's own ``select_action`` and ``predict_action_chunk`` run ``theta``, one evaluation a step.

    The number of steps in the policy's configuration becomes the theta's evaluations, until `uninstall`; a policy that
    is saved meanwhile is saved with that number, and without the theta. Another theta takes the place of the first.

    Raises:
        ValueError: The policy's loop, or something that is on in its configuration, does not go with a theta.
    """
    model = _model_of(policy)
    _check_theta(theta)
    uninstall(policy)
    count = POLICIES[policy.name]
    loop = _Loop(model, theta, getattr(policy.config, count))
    setattr(policy.config, count, theta.nfe)
    model.sample_actions, model.denoise_step = loop.sample_actions, loop.denoise_step


def uninstall(policy: Any) -> None:
    """Gives the policy its own loop back, and the number of its steps; one without a theta is left as it is."""
    loop = _installed(policy)
    if loop is not None:
        del policy.model.sample_actions, policy.model.denoise_step
        setattr(policy.config, POLICIES[policy.name], loop.steps_before)


def integrator(theta: Theta) -> Callable[..., torch.Tensor]:
    """A function in place of ``lerobot.policies.common.flow_matching.euler_integrate`` (LeRobot 0.6.1 and later).

    It is called as that is, ``(denoise_fn, noise, num_steps, ...)``, and refuses real-time chunking and prefixes.
    """
    _check_theta(theta)

    def integrate(
        denoise_fn: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        noise: torch.Tensor,
        num_steps: int,
        *,
        rtc_processor: Any = None,
        rtc_enabled: bool = False,
        hard_prefix: torch.Tensor | None = None,
        **rest: Any,
    ) -> torch.Tensor:
        if num_steps != theta.nfe:
            raise ValueError(f"num_steps is {num_steps}, expected {theta.nfe}, the evaluations of the theta")
        _check_chunking(rtc_processor, rtc_enabled)
        given = [name for name, value in {"hard_prefix": hard_prefix, **rest}.items() if value is not None]
        if given:
            raise ValueError(f"{given[0]} is given, expected None: a theta is learned for whole chunks from noise")
        return _solve(theta, noise, denoise_fn)

    return integrate


def _solve(theta: Theta, noise: torch.Tensor, denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The whole solve, of a velocity in the policy's time and direction."""
    return Sampler(theta).sample(noise, lambda t, x: -denoise(x, 1.0 - t))


class _Loop:
    """What stands in place of a model's two methods. The host's loop counts, and steps x by -v / steps.

    Args:
        model: Whose class has the methods.
        theta: What is run.
        steps_before: Of the host's loop, before.
    """

    def __init__(self, model: Any, theta: Theta, steps_before: int) -> None:
        self.model, self.theta, self.steps_before = model, theta, steps_before

    def sample_actions(self, *arguments: Any, **options: Any) -> torch.Tensor:
        _check_model(self.model)
        chunk = _Chunk(self.theta)
        token = _CHUNK.set(chunk)
        try:
            actions = type(self.model).sample_actions(self.model, *arguments, **options)
        finally:
            _CHUNK.reset(token)
        if chunk.done != self.theta.nfe:
            raise ValueError(f"the policy's loop took {chunk.done} steps, expected {self.theta.nfe}, the evaluations of the theta")
        return actions

    def denoise_step(self, *arguments: Any, **constants: Any) -> torch.Tensor:
        own, chunk = type(self.model).denoise_step, _CHUNK.get()
        if chunk is None:  # no loop that a theta stands in
            return own(self.model, *arguments, **constants)
        x, timestep, constants = _asked(self.model, arguments, constants)
        return chunk.step(x, timestep, lambda x, timestep: own(self.model, x_t=x, timestep=timestep, **constants))


class _Chunk:
    """One run of the loop: which evaluation is due, and what its sample is expected to be."""

    def __init__(self, theta: Theta) -> None:
        self.nfe, self.done = theta.nfe, 0
        self._sampler = Sampler(theta)
        self._asked: tuple[torch.Tensor, torch.Tensor] | None = None
        self._expected: torch.Tensor | None = None

    @torch.no_grad()
    def step(
        self, x: torch.Tensor, timestep: torch.Tensor, denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """What takes the loop's Euler step from ``x`` to the theta's next sample."""
        self._check(x, timestep)
        if self.done == 0:
            self._sampler.start(x)
            self._asked = self._sampler.query()
        assert self._asked is not None
        t, state = self._asked
        self._sampler.update(-denoise(state, 1.0 - t))
        self.done += 1
        self._asked = self._sampler.query()
        self._expected = self._sampler.finish() if self._asked is None else self._asked[1]
        return (x - self._expected) * self.nfe

    def _check(self, x: torch.Tensor, timestep: torch.Tensor) -> None:
        if x.dtype != torch.float32:
            raise ValueError(f"x_t is of dtype {x.dtype}, expected float32, as the policies sample")
        if x.requires_grad:
            raise ValueError("x_t asks for gradients, which do not go through a theta: expected torch.no_grad()")
        if self.done == self.nfe:
            raise ValueError(f"the policy's loop goes on after {self.nfe} steps, expected as many as the theta has evaluations")
        if timestep.shape != x.shape[:1]:
            raise ValueError(
                f"timestep has shape {list(timestep.shape)}, expected {list(x.shape[:1])}: actions with times of their own"
                " (a hard prefix) do not go with a theta"
            )
        expected = 1.0 - self.done / self.nfe
        off = (timestep.float() - expected).abs().max()
        if self._expected is not None:
            # One question to the device for both.
            moved = (x - self._expected).abs().max() / self._expected.abs().max().clamp(min=1.0)
            off, moved = torch.stack([off, moved]).tolist()
        else:
            off, moved = off.item(), 0.0
        if not off <= _TIME_TOLERANCE:
            raise ValueError(
                f"timestep is {timestep.flatten()[0].item():g} at step {self.done}, expected {expected:g}: the policy's loop is to"
                f" take {self.nfe} even steps from 1, as many as the theta has evaluations"
            )
        if not moved <= TOLERANCE[x.dtype]:
            raise ValueError(f"x_t was changed between steps {self.done - 1} and {self.done}, which does not go with a theta")


#: The chunk that this thread is at.
_CHUNK: ContextVar[_Chunk | None] = ContextVar("bespoke_solver.lerobot.chunk", default=None)


class PolicyField(TorchField):
    """u_t(x) of a policy on some observations, in the library's time: a ``field`` for `train`.

    Args:
        policy: As of `fit`.
        batches: Of observations, as ``predict_action_chunk`` takes them.
        autograd: Whether there is a vector-Jacobian product.
        max_batch: Samples given to the policy at once, at most.
        data_range: Least and greatest normalized action, for PSNR.
    """

    def __init__(
        self,
        policy: Any,
        batches: Iterable[Batch],
        *,
        autograd: bool = True,
        max_batch: int | None = None,
        data_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        self._model = _model_of(policy)
        if _installed(policy) is not None:
            raise ValueError("policy has a theta installed, expected its own loop: uninstall(policy) comes first")
        self._batches = [_observed(policy, self._model, batch) for batch in batches]
        if not self._batches:
            raise ValueError("observations hold no batch, expected one or more")
        #: Of every observation its batch and its row there.
        self._places = torch.tensor([(i, row) for i, held in enumerate(self._batches) for row in range(held.size)])
        super().__init__(
            self._answer,
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1},
            self._batches[0].noise.shape[1:],
            conditions={"observation": torch.arange(len(self._places))},
            autograd=autograd,
            max_batch=max_batch,
            data_range=data_range,
            name=policy.name,
        )
        for held, first in zip(self._batches, self._firsts()):
            self._check(held, first)

    def _answer(self, sample: torch.Tensor, timestep: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """The policy's velocity, from actions to noise; ``timestep`` is 1 at noise."""
        places = self._places[observation]
        answer = torch.empty_like(sample)
        for i, held in enumerate(self._batches):
            rows = torch.nonzero(places[:, 0] == i).reshape(-1)
            if len(rows):
                answer = answer.index_copy(0, rows, held.denoise(sample[rows], timestep[rows], places[rows, 1]))
        return answer

    def _firsts(self) -> Iterator[int]:
        """The first observation of every batch."""
        first = 0
        for held in self._batches:
            yield first
            first += held.size

    def _check(self, held: _Observed, first: int) -> None:
        """That the host's own loop ends where Euler's steps on this field do, rows in another order."""
        order = torch.arange(held.size).flip(0)
        labels = first + order
        found = Sampler(published("euler", held.steps)).sample(held.noise[order], lambda t, x: self(t, x, labels))
        own = held.actions[order]
        off = (found - own).abs().max().item()
        tolerance = max(TOLERANCE.get(parameter.dtype, 0.0) for parameter in self._model.parameters())
        if not off <= tolerance * max(1.0, own.abs().max().item()):
            raise ValueError(
                f"policy is {self.name}, whose loop ends {off:.2g} from where {held.steps} Euler steps on its denoise_step do,"
                f" expected {tolerance:g} of the largest at most: its answers depend on more than sample, time and observation"
            )


class _Observed:
    """What a policy's loop was given for one batch of observations, and what it made of it.

    Attributes:
        size: Observations.
        steps: Of the policy's loop.
        noise: What it began with.
        actions: What it ended with.
    """

    def __init__(self, model: Any, constants: dict[str, Any], noise: torch.Tensor, actions: torch.Tensor, steps: int) -> None:
        self._model, self._constants = model, constants
        self._device = noise.device
        self.size, self.steps = len(noise), steps
        self.noise, self.actions = noise.float().cpu(), actions.float().cpu()

    def denoise(self, x: torch.Tensor, timestep: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(self._device)
        constants = {name: _select(name, value, rows, self.size) for name, value in self._constants.items()}
        answer = self._model.denoise_step(x_t=x.to(self._device), timestep=timestep.to(self._device), **constants)
        return answer.to(x.device, x.dtype)


def _observed(policy: Any, model: Any, batch: Batch) -> _Observed:
    """Runs the policy on a batch, and keeps what its model's ``denoise_step`` is given."""
    asked: list[tuple[torch.Tensor, dict[str, Any]]] = []
    made: list[torch.Tensor] = []

    def denoise_step(*arguments: Any, **constants: Any) -> torch.Tensor:
        x, timestep, constants = _asked(model, arguments, constants)
        if not asked:
            asked.append((x.clone(), copy.copy(constants)))
        return type(model).denoise_step(model, x_t=x, timestep=timestep, **constants)

    def sample_actions(*arguments: Any, **options: Any) -> torch.Tensor:
        made.append(type(model).sample_actions(model, *arguments, **options).clone())
        return made[-1].clone()

    # Policies write into the batches that they are given.
    own = {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    with _replaced(model, sample_actions=sample_actions, denoise_step=denoise_step), _state_kept(policy), torch.no_grad():
        policy.predict_action_chunk(own)
    if not asked or not made:
        raise ValueError(f"policy is {policy.name}, whose predict_action_chunk asked no denoise_step, expected its loop to")
    noise, constants = asked[0]
    return _Observed(model, constants, noise, made[0], getattr(policy.config, POLICIES[policy.name]))


@contextmanager
def _replaced(model: Any, **methods: Any) -> Iterator[None]:
    """Methods of an object, meanwhile."""
    for name, method in methods.items():
        setattr(model, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(model, name)


@contextmanager
def _state_kept(policy: Any) -> Iterator[None]:
    """A policy that predicts is in evaluation mode from then on."""
    training = policy.training
    policy.eval()
    try:
        yield
    finally:
        policy.train(training)


def _asked(model: Any, arguments: tuple[Any, ...], given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Sample, time and constants of a call of ``denoise_step``."""
    if arguments or "x_t" not in given or "timestep" not in given:
        names = f"{len(arguments)} by place, {', '.join(given) or 'none'} by name"
        raise ValueError(f"{type(model).__name__}.denoise_step is given {names}, expected x_t and timestep by name")
    constants = dict(given)
    return constants.pop("x_t"), constants.pop("timestep"), constants


def _select(name: str, value: Any, rows: torch.Tensor, batch: int) -> Any:
    """Rows of whatever a model keeps of a batch of observations."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or len(value) != batch:
            raise ValueError(f"{name} has shape {list(value.shape)}, expected {batch} rows, one of each observation")
        return value.index_select(0, rows)
    if isinstance(value, dict):
        return {key: _select(f"{name}[{key!r}]", each, rows, batch) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_select(f"{name}[{i}]", each, rows, batch) for i, each in enumerate(value))
    if hasattr(value, "batch_select_indices"):  # a cache of transformers'
        selected = copy.deepcopy(value)
        selected.batch_select_indices(rows)
        return selected
    raise ValueError(f"{name} is {type(value).__name__}, expected tensors, or dicts, lists and transformers' caches of them")


def _batches(observations: Any, preprocessor: Callable[[Any], Batch] | None, limit: int) -> Iterator[Batch]:
    """Batches of at most ``limit`` observations in all."""
    if limit < 1:
        raise ValueError(f"limit is {limit}, expected 1 or more")
    if isinstance(observations, Mapping):
        observations = [observations]
    elif isinstance(observations, torch.utils.data.Dataset):
        order = torch.utils.data.RandomSampler(observations, generator=torch.Generator().manual_seed(0))
        observations = torch.utils.data.DataLoader(observations, batch_size=min(limit, 16), sampler=order)
    left = limit
    for batch in observations:
        batch = batch if preprocessor is None else preprocessor(batch)
        if not isinstance(batch, Mapping):
            raise ValueError(f"observations hold {type(batch).__name__}, expected mappings of tensors, as the policy is given")
        sizes = {len(value) for value in batch.values() if isinstance(value, torch.Tensor) and value.ndim}
        if len(sizes) != 1:
            raise ValueError(f"a batch of observations has tensors of {sorted(sizes) or 'no'} rows, expected as many in each")
        size = sizes.pop()
        yield batch if size <= left else {key: _first(value, left, size) for key, value in batch.items()}
        left -= size
        if left <= 0:
            return


def _first(value: Any, count: int, size: int) -> Any:
    """The first of ``size`` entries of whatever has as many."""
    if isinstance(value, torch.Tensor) and value.ndim or isinstance(value, list) and len(value) == size:
        return value[:count]
    return value


def _installed(policy: Any) -> _Loop | None:
    """The loop that stands in a policy."""
    loop = getattr(getattr(getattr(policy, "model", None), "sample_actions", None), "__self__", None)
    return loop if isinstance(loop, _Loop) else None


def _model_of(policy: Any) -> Any:
    """The model of a policy whose loop is known."""
    name = getattr(policy, "name", None)
    if not isinstance(name, str) or name not in POLICIES:
        kind = type(policy).__name__ + (f" ({name})" if isinstance(name, str) else "")
        raise ValueError(f"policy is {kind}, expected one of LeRobot's whose loop is known: {', '.join(POLICIES)}")
    model, count = getattr(policy, "model", None), POLICIES[name]
    missing = [method for method in _METHODS if not callable(getattr(type(model), method, None))]
    missing += [] if isinstance(getattr(policy.config, count, None), int) else [f"config.{count}"]
    if missing:
        raise ValueError(f"policy is {name} without {missing[0]}, expected it as in LeRobot 0.4 to 0.6")
    if getattr(policy.config, "compile_model", False):
        raise ValueError("config.compile_model is on, expected off: the loop is compiled, and asks nobody else")
    other = [method for method in _METHODS if method in vars(model)] if _installed(policy) is None else []
    if other:
        raise ValueError(f"policy is {name} whose {other[0]} was replaced already, expected the method of its class")
    _check_model(model)
    return model


def _check_model(model: Any) -> None:
    processor, chunking = getattr(model, "rtc_processor", None), getattr(model.config, "rtc_config", None)
    _check_chunking(processor, bool(getattr(chunking, "enabled", False)))


def _check_chunking(processor: Any, enabled: bool) -> None:
    why = "it works on velocities, and what a theta has the loop step by is none"
    if enabled:
        raise ValueError(f"real-time chunking is on (rtc_config.enabled), expected off: {why}")
    if processor is not None and processor.is_debug_enabled():
        raise ValueError(f"real-time chunking's tracking is on (rtc_config.debug), expected off: {why}")


def _check_theta(theta: Theta) -> None:
    """A theta of `fit` says nothing of a path; other thetas and published solvers do."""
    if not isinstance(theta, Theta):
        raise TypeError(f"theta is {type(theta).__name__}, expected a Theta, as of fit, Theta.load(path) or solver(name, nfe)")
    scheduler = theta.model.get("scheduler", _PATH)
    path = scheduler.get("name") if isinstance(scheduler, dict) else scheduler
    end = theta.model.get("end", 1.0)
    if path != _PATH or end != 1.0:
        raise ValueError(f"theta is for the path {path!r} to {end}, expected {_PATH!r} to 1, that of the policies")


__all__ = ["POLICIES", "Batch", "PolicyField", "fit", "install", "integrator", "uninstall"]
