"""What the configurations of diffusers' schedulers say of the model, and which of them no solver can stand in for.

Every key of every scheduler is in `KEYS` or belongs to a class in `REFUSED`; a key that is in neither is an error, so
that nothing is dropped unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Of a key: it says what the model was trained on; it makes the grid of the scheduler that is replaced, which a
#: published solver takes over and a theta, which has learned its times, does not need; it belongs to the solver that is
#: replaced; it is left out, with a warning; any value but these is refused.
MODEL, GRID, SOLVER, LEFT_OUT, REFUSED_UNLESS = "model", "grid", "solver", "left out", "refused"

_GRID_KEYS = """
    timestep_spacing steps_offset set_alpha_to_one final_sigmas_type interpolation_type lambda_min_clipped
    use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas rho sigma_schedule
    shift flow_shift use_dynamic_shifting base_shift max_shift base_image_seq_len max_image_seq_len time_shift_type
    shift_terminal skip_prk_steps
"""
_SOLVER_KEYS = """
    solver_order solver_type algorithm_type lower_order_final euler_at_final disable_corrector predict_x0 solver_p
    predictor_order corrector_order tau_func variance_type clip_sample_range sample_max_value
    dynamic_thresholding_ratio eta s_noise noise_sampler_seed
"""
_MODEL_KEYS = """
    num_train_timesteps prediction_type beta_start beta_end beta_schedule trained_betas rescale_betas_zero_snr
    snr_shift_scale use_flow_sigmas invert_sigmas timestep_type sigma_min sigma_max sigma_data
"""

#: What becomes of a key.
KEYS: dict[str, str] = {
    **dict.fromkeys(_MODEL_KEYS.split(), MODEL),
    **dict.fromkeys(_GRID_KEYS.split(), GRID),
    **dict.fromkeys(_SOLVER_KEYS.split(), SOLVER),
    "clip_sample": LEFT_OUT,
    "thresholding": REFUSED_UNLESS,
    "stochastic_sampling": REFUSED_UNLESS,
}

_THRESHOLDING = "it bends the model's output by quantiles of each sample, which no linear solver does"
_STOCHASTIC = "it draws new noise at every step, as models distilled for few steps are sampled"
_REASONS = {"thresholding": _THRESHOLDING, "stochastic_sampling": _STOCHASTIC}

_CONSISTENCY = "its models answer with the end of the path, not with its direction"
_DISCRETE = "its samples are tokens, not numbers"
_INVERSE = "it runs from data to noise"

#: Classes no solver of an ordinary differential equation stands in for, and why.
REFUSED: dict[str, str] = {
    "AmusedScheduler": _DISCRETE,
    "BlockRefinementScheduler": _DISCRETE,
    "CMStochasticIterativeScheduler": _CONSISTENCY,
    "ConsistencyDecoderScheduler": _CONSISTENCY,
    "DDIMInverseScheduler": _INVERSE,
    "DDPMWuerstchenScheduler": "its models are given a share of noise in place of a timestep",
    "DPMSolverMultistepInverseScheduler": _INVERSE,
    "DiscreteDDIMScheduler": _DISCRETE,
    "EntropyBoundScheduler": _DISCRETE,
    "FlowMapEulerDiscreteScheduler": "its models are given two times, and answer with the way between them",
    "FlowMatchLCMScheduler": _CONSISTENCY,
    "HeliosDMDScheduler": _CONSISTENCY,
    "HeliosScheduler": "it goes through stages of growing resolution, each a path of its own",
    "KarrasVeScheduler": "it draws new noise before every step",
    "LCMScheduler": _CONSISTENCY,
    "MiniMaxH3Scheduler": "its pipeline steps several samples of different sizes at once",
    "PiflowScheduler": "its models answer with a policy of many small steps, not with a direction",
    "RFD4ProteinaScheduler": "its samples are coordinates under rotations, with noise of its own at every step",
    "RePaintScheduler": "it goes back and forth in time and mixes a picture into the sample",
    "SCMScheduler": _CONSISTENCY,
    "ScoreSdeVeScheduler": "its steps are a predictor and a random corrector",
    "TCDScheduler": _CONSISTENCY,
    "UnCLIPScheduler": "its step is told the timestep before, and draws noise of a learned variance",
    "VQDiffusionScheduler": _DISCRETE,
}

#: Classes whose noise is left out: the ordinary differential equation has the same distributions.
STOCHASTIC = frozenset(
    """DDPMScheduler DDPMParallelScheduler EulerAncestralDiscreteScheduler KDPM2AncestralDiscreteScheduler
    SASolverScheduler DPMSolverSDEScheduler LTXEulerAncestralRFScheduler""".split()
)

_FLOW = frozenset(
    "FlowMatchEulerDiscreteScheduler FlowMatchHeunDiscreteScheduler LTXEulerAncestralRFScheduler".split()
)
_BETAS = frozenset(
    """DDIMScheduler DDIMParallelScheduler DDPMScheduler DDPMParallelScheduler PNDMScheduler DEISMultistepScheduler
    DPMSolverMultistepScheduler DPMSolverSinglestepScheduler UniPCMultistepScheduler SASolverScheduler
    DPMSolverSDEScheduler EulerDiscreteScheduler EulerAncestralDiscreteScheduler HeunDiscreteScheduler
    KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler LMSDiscreteScheduler CogVideoXDDIMScheduler
    CogVideoXDPMScheduler""".split()
)
_EDM = frozenset("EDMEulerScheduler EDMDPMSolverMultistepScheduler CosineDPMSolverMultistepScheduler".split())
#: Classes that a solver can stand in for.
UNDERSTOOD = _FLOW | _BETAS | _EDM | {"IPNDMScheduler"}

#: Keys of `BespokeScheduler` that say how the model was trained, with their defaults.
TRAINING: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "rescale_betas_zero_snr": False,
    "snr_shift_scale": None,
    "noise_path": None,
    "clock": None,
    "sigma_min": None,
    "sigma_max": None,
    "sigma_data": None,
}


def understand(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `TRAINING` that the configuration of a scheduler amounts to.

    Args:
        config: Of one of diffusers' schedulers, or a mapping with as many of the keys as differ from the defaults.

    Raises:
        ValueError: A class or a value that a solver cannot stand in for, or a key that is not known; it is named.
    """
    name = config.get("_class_name")
    given = {key: value for key, value in config.items() if not key.startswith("_")}
    if name == "BespokeScheduler" or "noise_path" in given:
        return {key: given.get(key, default) for key, default in TRAINING.items()}
    check(name, given)
    said = {key: given[key] for key in TRAINING if key in given and KEYS.get(key) == MODEL}
    return {**TRAINING, **said, **_as_trained(name, given)}


def check(name: str | None, config: Mapping[str, Any]) -> None:
    """Refuses, by name, what `understand` cannot express."""
    if name in REFUSED:
        raise ValueError(f"the scheduler is {name}, which a solver cannot replace: {REFUSED[name]}")
    if name is not None and name not in UNDERSTOOD:
        raise ValueError(f"the scheduler is {name}, expected one of {', '.join(sorted(UNDERSTOOD))}")
    for key, value in config.items():
        if key not in KEYS:
            raise ValueError(f"the scheduler's {key} is {value!r}: this key is not known, so it cannot be honoured")
        if KEYS[key] == REFUSED_UNLESS and value:
            raise ValueError(f"the scheduler's {key} is {value!r}, expected False: {_REASONS[key]}")


def left_out(config: Mapping[str, Any]) -> list[str]:
    """Keys that are set and will not be done."""
    return [key for key, value in config.items() if KEYS.get(key) == LEFT_OUT and value]


def _as_trained(name: str | None, config: Mapping[str, Any]) -> dict[str, Any]:
    if name in _FLOW or (name is None and "prediction_type" not in config):
        inverted = bool(config.get("invert_sigmas"))
        return {"prediction_type": "flow_prediction", "noise_path": "flow", "clock": "data" if inverted else None}
    if name == "IPNDMScheduler":
        return {"prediction_type": "v_prediction", "noise_path": "angle", "clock": "angle"}
    if name in _EDM:
        if name.startswith("Cosine"):
            return {"noise_path": "sigmas", "clock": "angle"}
        # diffusers' "epsilon" of EDM's preconditioning is -v of the scaled data.
        turned = {"epsilon": "minus_v", "v_prediction": "v_prediction"}
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in turned:
            raise ValueError(f"the scheduler's prediction_type is {prediction!r}, expected epsilon or v_prediction")
        return {"prediction_type": turned[prediction], "noise_path": "sigmas", "clock": "log-sigma"}
    flows = bool(config.get("use_flow_sigmas"))
    if flows:
        return {"noise_path": "flow"}
    if config.get("prediction_type") == "flow_prediction" and "use_flow_sigmas" in config:
        raise ValueError("the scheduler's prediction_type is 'flow_prediction' and its use_flow_sigmas False, expected True")
    if config.get("prediction_type") == "flow_prediction":
        return {"noise_path": "flow"}
    if config.get("timestep_type") == "continuous":
        if config.get("sigma_min") is None or config.get("sigma_max") is None:
            raise ValueError("the scheduler's timestep_type is 'continuous', expected sigma_min and sigma_max as well")
        if config.get("prediction_type", "epsilon") != "v_prediction":
            raise ValueError("the scheduler's timestep_type is 'continuous', expected prediction_type 'v_prediction'")
        return {"noise_path": "sigmas", "clock": "log-sigma", "sigma_data": 1.0}
    return {"noise_path": "betas", "sigma_min": None, "sigma_max": None}
