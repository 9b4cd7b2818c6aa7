"""A scheduler that asks a pipeline what its model answers, at timesteps and samples of others' choice.

The pipeline runs as it always does, on a thread of its own, and stands still inside `Probe.step` until the next
question: its loop then makes the model's inputs, calls it, and does with the answers whatever it does (guidance and its
rescaling, ControlNets, several models, packed latents, signs), and what arrives at the next `step` is the answer.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerOutput

from .base import ModelScheduler
from .configuration import understand
from .replaced import clocked, named

#: Steps that a run is told of: questions it can answer.
_LENGTH = 400


class Ended(BaseException):
    """Unwinds the pipeline's call when nobody asks any more. No `Exception`: pipelines do not catch it."""


@dataclass
class _Question:
    timestep: float
    sample: torch.Tensor
    gradients: bool


class Probe(ModelScheduler):
    """Stands in for a pipeline's scheduler, and hands out questions for samples.

    Args:
        scheduler: The pipeline's own.
    """

    order = 1

    def __init__(self, scheduler: Any) -> None:
        config = named(scheduler)
        self._describe(understand(config), {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"})
        self.questions: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.asked: _Question | None = None
        self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(1)
        self.num_inference_steps = 0
        self.step_index: int | None = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        custom = timesteps if timesteps is not None else sigmas
        count = len(custom) if num_inference_steps is None else num_inference_steps
        if timesteps is not None and sigmas is not None:
            self._convention = clocked(self.config.replaced, self._convention, timesteps, sigmas, mu)
        convention = self._convention
        values = convention.timestep_at([0.5] * count)
        self.timesteps = torch.tensor(values, dtype=torch.float32, device=device)
        scalars = convention.scalars([0.5])[0]
        self.sigmas = torch.full((count + 1,), scalars.sigma, device=device)
        self.num_inference_steps, self.step_index = count, None

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        self.step_index = (self.step_index or 0) + 1
        self.answers.put(_Answer(model_output, timestep, sample))
        # What comes after the last step, a decoder perhaps, is nothing that was asked for.
        question = None if self._is_last(timestep) else self.questions.get()
        if question is None:
            raise Ended
        # Elements that the loop has yet to come to lie in this memory.
        with torch.no_grad():
            self.timesteps.fill_(question.timestep)
            time = self._convention.time_of([question.timestep])
            self.sigmas.fill_(self._convention.scalars(time)[0].sigma)
        torch.set_grad_enabled(question.gradients)
        following = question.sample.to(sample.device, sample.dtype)
        # A copy: the pipeline may write into what it is given.
        self.asked = _Question(question.timestep, following.detach().clone(), question.gradients)
        return SchedulerOutput(prev_sample=following) if return_dict else (following,)

    def _is_last(self, timestep: Any) -> bool:
        """Whether the loop has no step after the one at ``timestep``: by its place, as it may begin at any, or by their number."""
        if isinstance(timestep, torch.Tensor) and timestep.data_ptr() == self.timesteps[-1:].data_ptr():
            return True
        return self.step_index == len(self.timesteps)

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        return 0

    def __deepcopy__(self, memo: Any) -> Probe:
        raise ValueError("the pipeline steps a second sample by a copy of its scheduler, which is not one solve")


@dataclass
class _Answer:
    output: torch.Tensor
    timestep: Any
    sample: torch.Tensor


class Run:
    """One call of a pipeline, for a fixed batch, that answers questions.

    Args:
        pipeline: Left as it is: a copy that shares its models is run.
        call: What it is called with.
        batch: Samples it is called for.
    """

    def __init__(self, pipeline: Any, call: Mapping[str, Any], batch: int) -> None:
        self.name = type(pipeline).__name__
        self.batch = batch
        self._pipeline, self._call = pipeline, dict(call)
        self._thread: threading.Thread | None = None
        self._begin()

    def _begin(self) -> None:
        pipeline = copy.copy(self._pipeline)
        self._probe = pipeline.scheduler = Probe(self._pipeline.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        call = {"num_inference_steps": _LENGTH, **self._call}
        self._thread = threading.Thread(target=_run, args=(pipeline, self._probe, call), daemon=True)
        self._thread.start()
        # What the pipeline begins with is none of our questions.
        answer = self._take()
        if not isinstance(answer, _Answer):
            raise ValueError(f"{self.name} ended without a step of its scheduler")
        #: How often the pipeline has each sample, as where it steps those of both passes of guidance.
        self.copies, rest = divmod(len(answer.sample), self.batch)
        if rest or not self.copies:
            raise ValueError(f"{self.name} steps {len(answer.sample)} samples where it was called for {self.batch}")
        self.shape = (self.batch, *answer.sample.shape[1:])
        self.dtype, self.device = answer.sample.dtype, answer.sample.device
        #: How the model counts time in this call.
        self.convention = self._probe._convention

    def _take(self) -> Any:
        answer = self._probe.answers.get()
        if isinstance(answer, BaseException):
            self._thread = None
            raise answer
        return answer

    def ask(self, timestep: float, sample: torch.Tensor, gradients: bool = False) -> torch.Tensor:
        """What the pipeline gives its scheduler for ``sample``, of `shape`, at ``timestep``."""
        if self._thread is None:
            self._begin()
        question = _Question(timestep, torch.cat([sample] * self.copies), gradients)
        self._probe.questions.put(question)
        answer = self._take()
        if answer is None:  # it came to the end of its steps
            self._begin()
            self._probe.questions.put(question)
            answer = self._take()
        self._see_that_it_is_one(answer)
        output = answer.output[:, : answer.sample.shape[1]]
        first = output[: self.batch]
        if self.copies > 1 and not torch.equal(torch.cat([first] * self.copies), output):
            raise ValueError(f"{self.name} steps {self.copies} samples for each that it was called for, and not alike")
        return first

    def _see_that_it_is_one(self, answer: _Answer) -> None:
        asked = self._probe.asked
        assert asked is not None
        told = answer.timestep
        told = float(told.reshape(-1)[0]) if isinstance(told, torch.Tensor) else float(told)
        if abs(told - asked.timestep) > 1e-2 * max(1.0, abs(asked.timestep)):
            raise ValueError(
                f"{self.name} steps at timestep {told} where its scheduler's is {asked.timestep}: it reads its timesteps"
                " ahead, so its model cannot be asked through it; give fit a TorchField(function, ...) of that model"
            )
        if not torch.equal(answer.sample.detach().to(asked.sample.dtype), asked.sample):
            raise ValueError(
                f"{self.name} changes its samples between steps, so what its model answers is no function of the"
                " sample; fit the pipeline of the same model that does not (`from_pipe`), or a TorchField(function, ...)"
            )

    def end(self) -> None:
        """Lets the call go."""
        if self._thread is not None:
            self._probe.questions.put(None)
            self._thread.join()
            self._thread = None

    def __del__(self) -> None:
        if getattr(self, "_thread", None) is not None:
            self._probe.questions.put(None)


def _run(pipeline: Any, probe: Probe, call: Mapping[str, Any]) -> None:
    try:
        pipeline(**call)
    except Ended:
        pass
    except BaseException as error:
        probe.answers.put(error)
        return
    probe.answers.put(None)
