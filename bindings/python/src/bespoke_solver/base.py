"""What every scheduler for a model has, whatever solves it: how it was trained, and what pipelines ask of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from .convention import Convention, alphas_cumprod_of, convention_of

#: Keys of the replaced scheduler that pipelines read from whichever scheduler they have.
_READ_BY_PIPELINES = (
    "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "use_dynamic_shifting", "use_flow_sigmas",
    "variance_type",
)  # fmt: skip


class PerThread(threading.local):
    """What a thread's call of a pipeline has changed."""

    def __deepcopy__(self, memo: Any) -> PerThread:
        raise TypeError(
            "the attributes of a BespokeScheduler are copied one by one, expected copy.deepcopy of the whole: pipelines that"
            " step several views through one scheduler by putting its attributes back (StableDiffusionPanorama) are not supported"
        )


class ModelScheduler(SchedulerMixin, ConfigMixin):
    """Samples are noise of standard deviation 1 at first, and models are given them as they are."""

    init_noise_sigma = 1.0

    def _describe(self, training: Mapping[str, Any], replaced: Mapping[str, Any] | None, **more: Any) -> None:
        """Registers how the model was trained, and beside it what pipelines read of the scheduler that is replaced."""
        replaced = None if replaced is None else dict(replaced)
        read = {key: replaced[key] for key in _READ_BY_PIPELINES if key in replaced} if replaced else {}
        self.register_to_config(**more, **training, **read, replaced=replaced)
        self._training = dict(training)
        self._convention: Convention = convention_of(training)
        self._local = PerThread()

    @property
    def begin_index(self) -> int | None:
        """What the calling thread's pipeline said by `set_begin_index`."""
        return getattr(self._local, "begin", None)

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """alpha^2 at timesteps 0, 1, ..., float32, of a model with betas."""
        if self._training["noise_path"] not in (None, "betas") or self._convention.is_flow:
            raise AttributeError("alphas_cumprod is missing: the model has no betas")
        return torch.tensor(alphas_cumprod_of(self._training), dtype=torch.float32)

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The sample: models of these kinds are given it as it is."""
        return sample

    def _in_use(self) -> Convention:
        """How the model counts time in the pipeline's present call."""
        return self._convention

    def add_noise(
        self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """alpha * data + sigma * noise at timesteps of training, ``[batch]``, whole or not."""
        convention = self._in_use()
        times = convention.time_of(timesteps.detach().double().cpu().numpy().reshape(-1))
        scalars = convention.scalars(times)
        shape = [-1] + [1] * (original_samples.ndim - 1)
        data = original_samples.new_tensor([s.alpha / convention.data_scale for s in scalars]).reshape(shape)
        share = original_samples.new_tensor([s.sigma for s in scalars]).reshape(shape)
        return data * original_samples + share * noise

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise`, as flow-matching pipelines call it."""
        return self.add_noise(sample, noise, torch.as_tensor(timestep).reshape(-1))

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Notes it for `begin_index`: which evaluation it is follows from the timestep."""
        self._local.begin = begin_index

    def __len__(self) -> int:
        return self.config.num_train_timesteps
