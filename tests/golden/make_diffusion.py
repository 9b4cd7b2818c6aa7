"""States of diffusers' schedulers after every evaluation: on an analytic field in diffusion.json,
on shipped models in digits.json (make it anew when those change).

    python -m venv venv && venv/bin/pip install torch==2.11.0 diffusers==0.42.1 numpy scipy
    venv/bin/python tests/golden/make_diffusion.py

The field is the exact denoiser of a Gaussian mixture, in float64; each scheduler is driven as a
pipeline drives it, but asks the field at its own sigma rather than at its rounded timestep. What
diffusers lacks is written here from the published formulas:

- tAB-DEIS (`deis`: diffusers interpolates in log rho, kept as `logrho`): Zhang and Chen 2023,
  Eq. 15, with the weights by adaptive quadrature.
- iPNDM's first level has alpha = 0, where diffusers divides by 1e-8: the case begins at the second.
- DPM-Solver-3's second inner state: diffusers uses its order-2 `midpoint` formula there, and
  Algorithm 2 of Lu et al. 2022 has the coefficient of its `heun` formula; `PaperSingleStep` says so.
"""

import json
import math
import pathlib

import diffusers
import numpy as np
import scipy
import scipy.integrate
import torch

ELEMENTS, BATCH = 4, 3
generator = np.random.default_rng(7)
MIXTURE = {
    "std": 0.3,
    "means": np.round(generator.uniform(-1, 1, (5, ELEMENTS)), 3).tolist(),
    "weights": [1.0, 2.0, 1.5, 0.5, 1.0],
}
NOISE = np.round(generator.standard_normal((BATCH, ELEMENTS)), 4)


def denoiser(x, alpha, sigma):
    """E[x1 | x] for x = alpha x1 + sigma x0."""
    mu = torch.tensor(MIXTURE["means"], dtype=torch.float64)
    tau2 = MIXTURE["std"] ** 2
    v = alpha**2 * tau2 + sigma**2
    offset = x[:, None, :] - alpha * mu
    logits = torch.log(torch.tensor(MIXTURE["weights"], dtype=torch.float64)) - (offset**2).sum(-1) / (2 * v)
    per_mode = mu + alpha * tau2 / v * offset
    return (torch.softmax(logits, 1)[..., None] * per_mode).sum(1)


def noise_of(x, alpha, sigma):
    return (x - alpha * denoiser(x, alpha, sigma)) / sigma


def case(name, levels, states, times=None, **more):
    """`levels`: (alpha, sigma) of each evaluation and of the end; `states`: x after each."""
    assert len(levels) == len(states), name
    start, rest = states[0], states[1:]
    result = {"name": name, "levels": [list(map(float, level)) for level in levels]}
    result["start"] = start.tolist()
    result["states"] = [state.tolist() for state in rest]
    if times is not None:
        result["times"] = list(map(float, times))
    return result | more


def sigma_driven(name, scheduler, steps, flow=False, noise_of=noise_of, start=NOISE, **more):
    """A scheduler that keeps `sigmas` and has `_sigma_to_alpha_sigma_t`."""
    scheduler.set_timesteps(steps)
    levels = [tuple(map(float, scheduler._sigma_to_alpha_sigma_t(s.double()))) for s in scheduler.sigmas]
    x = torch.from_numpy(start)
    states = [x]
    for timestep, (alpha, sigma) in zip(scheduler.timesteps, levels):
        eps = noise_of(x, alpha, sigma)
        output = eps - (x - sigma * eps) / alpha if flow else eps
        x = scheduler.step(output, timestep, x).prev_sample.double()
        states.append(x)
    return case(name, levels, states, **more)


def ddim(steps, noise_of=noise_of, start=NOISE, **more):
    scheduler = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    squares = [float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps] + [1.0]
    levels = [(math.sqrt(a), math.sqrt(1 - a)) for a in squares]
    x = torch.from_numpy(start)
    states = [x]
    for timestep, level in zip(scheduler.timesteps, levels):
        x = scheduler.step(noise_of(x, *level), timestep, x).prev_sample
        states.append(x)
    return case("ddim", levels, states, **more)


class PaperSingleStep(diffusers.DPMSolverSinglestepScheduler):
    """diffusers' singlestep solver with Algorithm 2's second inner state."""

    def singlestep_dpm_solver_second_order_update(self, *args, **kwargs):
        kind = self.config.solver_type
        if self.config.solver_order == 3:
            self.register_to_config(solver_type="heun")
        try:
            return super().singlestep_dpm_solver_second_order_update(*args, **kwargs)
        finally:
            self.register_to_config(solver_type=kind)


def singlestep(order, steps, **more):
    scheduler = PaperSingleStep(
        algorithm_type="dpmsolver", solver_order=order, final_sigmas_type="sigma_min", lower_order_final=False
    )
    orders = [order] * (steps // order)
    return sigma_driven(f"dpm-solver-{order}", scheduler, steps, orders=orders, **more)


def ipndm(steps, noise_of=noise_of, start=NOISE, **more):
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    levels = list(zip(scheduler.alphas.double().tolist(), scheduler.betas.double().tolist()))
    # Its first level has alpha = 0 and an infinite lambda, where pred = (x - eps) / 1e-8 is noise:
    # begin at the second, as with a strength below 1.
    scheduler.set_begin_index(1)
    levels = levels[1:]
    x = torch.from_numpy(start)
    states = [x]
    for timestep, (alpha, sigma) in zip(scheduler.timesteps[1:], levels):
        eps = noise_of(x, alpha, sigma)
        v = (eps - sigma * x) / alpha
        x = scheduler.step(v, timestep, x).prev_sample
        states.append(x)
    return case("ipndm", levels, states, **more)


def edm(levels_count, noise_of=noise_of, start=NOISE, **more):
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(levels_count)
    # Its sigmas repeat, one for each call; its samples are x / alpha.
    sigmas = scheduler.sigmas.double().tolist()
    scale = lambda nsr: 1 / math.sqrt(1 + nsr**2)
    y = torch.from_numpy(start) / scale(sigmas[0])
    states = [torch.from_numpy(start)]
    evaluations = [sigmas[0]]
    for call, timestep in enumerate(scheduler.timesteps):
        # The corrector's call is made at the next level.
        nsr = sigmas[0] if call == 0 else evaluations[-1]
        eps = noise_of(y * scale(nsr), scale(nsr), scale(nsr) * nsr)
        y = scheduler.step(eps, timestep, y).prev_sample.double()
        after = sigmas[call + 1] if call % 2 == 0 else evaluations[-1]
        evaluations.append(after)
        states.append(y * scale(after))
    levels = [(scale(s), scale(s) * s) for s in evaluations]
    return case("edm", levels, states, **more)


def tab_deis(degree, steps, noise_of=noise_of, start=NOISE, **more):
    """On the continuous VP path, quadratic in time, from t = 1 to 1e-3 of the noise's time."""
    beta_min, beta_max, last = 0.1, 20.0, 1e-3
    exponent = lambda s: s * s * (beta_max - beta_min) / 2 + s * beta_min
    level = lambda s: (math.exp(-exponent(s) / 2), math.sqrt(-math.expm1(-exponent(s))))
    times = [(1 + (math.sqrt(last) - 1) * i / steps) ** 2 for i in range(steps + 1)]
    rho = lambda s: level(s)[1] / level(s)[0]
    # rho = sqrt(e^T - 1): d rho / d s = e^T T' / (2 rho)
    rho_dot = lambda s: math.exp(exponent(s)) * (s * (beta_max - beta_min) + beta_min) / (2 * rho(s))
    x = torch.from_numpy(start)
    states, history = [x], []
    for i in range(steps):
        a, b = times[i], times[i + 1]
        history.append(noise_of(x, *level(a)))
        nodes = times[max(0, i - degree) : i + 1]
        y = x / level(a)[0]
        for j, eps in zip(range(len(nodes)), history[-len(nodes) :]):
            others = [n for k, n in enumerate(nodes) if k != j]
            basis = lambda s: math.prod((s - n) / (nodes[j] - n) for n in others)
            weight, _ = scipy.integrate.quad(lambda s: basis(s) * rho_dot(s), a, b, epsabs=1e-13, epsrel=1e-12)
            y = y + weight * eps
        x = y * level(b)[0]
        states.append(x)
    return case(f"deis{degree}", [level(s) for s in times], states, times=[1 - s for s in times], **more)


def digits(model, guidance_scale):
    """What a driver needs to sample a shipped model: `model` is fm-ot or vp, classes are 3 and 8."""
    weights = pathlib.Path(__file__).parents[2] / "models" / f"digits-{model}.pt"
    network = torch.jit.load(weights).eval()
    classes, beta_min, beta_max = torch.tensor([3, 8]), 0.1, 20.0

    def noise_of(x, alpha, sigma):
        if model == "fm-ot":
            t = alpha
        else:
            exponent = math.log1p((sigma / alpha) ** 2)
            root = math.sqrt(2 * (beta_max - beta_min) * exponent + beta_min**2)
            t = 1 - 2 * exponent / (root + beta_min)
        time = torch.full((2,), t, dtype=torch.float32)
        forward = lambda c: network(x.float().reshape(-1, 1, 8, 8), time, c).double().reshape(x.shape)
        with torch.no_grad():
            output = forward(classes)
            if guidance_scale != 1:
                unconditional = forward(torch.full_like(classes, 10))
                output = unconditional + guidance_scale * (output - unconditional)
        return x - t * output if model == "fm-ot" else output

    start = np.round(np.random.default_rng(11).standard_normal((2, 64)), 4)
    more = {"model": model, "guidance_scale": guidance_scale, "class": classes.tolist()}
    return {"noise_of": noise_of, "start": start} | more


def write(name, document, digits):
    round_floats = lambda v: (
        float(f"{v:.{digits}g}") if isinstance(v, float)
        else [round_floats(w) for w in v] if isinstance(v, list)
        else {k: round_floats(w) for k, w in v.items()} if isinstance(v, dict)
        else v
    )
    versions = {module.__name__: module.__version__ for module in (diffusers, torch, np, scipy)}
    document = {"made_by": "tests/golden/make_diffusion.py", "versions": versions} | document
    pathlib.Path(__file__).with_name(name).write_text(json.dumps(round_floats(document)) + "\n")
    for made in document["cases"]:
        assert np.isfinite(made["states"]).all(), made["name"]
        print(name, made["name"], len(made["states"]))


def main():
    multistep = diffusers.DPMSolverMultistepScheduler
    unipc, deis = diffusers.UniPCMultistepScheduler, diffusers.DEISMultistepScheduler
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    cases = [ddim(10), singlestep(2, 10), singlestep(3, 12)]
    for order in (2, 3):
        for steps in (10, 18):
            cases.append(sigma_driven(f"dpm++{order}m", multistep(solver_order=order), steps))
        cases.append(sigma_driven(f"dpm++{order}m", multistep(solver_order=order, **flow), 10, flow=True))
    for order, suffix in ((2, ""), (3, "3")):
        for bh in ("bh2", "bh1"):
            name = "unipc" + suffix + ("-bh1" if bh == "bh1" else "")
            # diffusers' bh1 multiplies an infinite B(h) by 0 in a step to sigma = 0: stop before it.
            last = "sigma_min" if bh == "bh1" else "zero"
            scheduler = unipc(solver_order=order, solver_type=bh, final_sigmas_type=last)
            cases.append(sigma_driven(name, scheduler, 10))
        options = flow | {"flow_shift": 3.0}
        cases.append(sigma_driven("unipc" + suffix, unipc(solver_order=order, **options), 10, flow=True))
    # diffusers' orders 2 and 3 are polynomials of degree 1 and 2; 16 steps keep the order to the end.
    for order in (2, 3):
        cases.append(sigma_driven(f"logrho{order - 1}", deis(solver_order=order), 16))
    cases += [tab_deis(degree, 10) for degree in (1, 2, 3)]
    cases += [ipndm(12), edm(9)]
    write("diffusion.json", {"mixture": MIXTURE, "cases": cases}, 12)

    fm_ot, guided_fm_ot = digits("fm-ot", 1.0), digits("fm-ot", 2.5)
    cases = [
        sigma_driven("dpm++2m", multistep(solver_order=2, **flow), 8, flow=True, **fm_ot),
        sigma_driven("unipc3", unipc(solver_order=3, **flow), 8, flow=True, **guided_fm_ot),
    ]
    leading = {"timestep_spacing": "leading", "steps_offset": 1}
    for guidance_scale in (1.0, 2.5):
        vp = digits("vp", guidance_scale)
        cases += [ddim(8, **vp), singlestep(2, 8, **vp), singlestep(3, 9, **vp)]
        for order in (2, 3):
            cases.append(sigma_driven(f"dpm++{order}m", multistep(solver_order=order, **leading), 8, **vp))
            suffix = "" if order == 2 else "3"
            cases.append(sigma_driven(f"unipc{suffix}", unipc(solver_order=order, **leading), 8, **vp))
            scheduler = unipc(solver_order=order, solver_type="bh1", final_sigmas_type="sigma_min", **leading)
            cases.append(sigma_driven(f"unipc{suffix}-bh1", scheduler, 8, **vp))
            cases.append(sigma_driven(f"logrho{order - 1}", deis(solver_order=order, **leading), 16, **vp))
        cases += [tab_deis(degree, 8, **vp) for degree in (1, 2, 3)]
        cases += [ipndm(9, **vp), edm(5, **vp)]
    write("digits.json", {"cases": cases}, 8)


if __name__ == "__main__":
    main()
