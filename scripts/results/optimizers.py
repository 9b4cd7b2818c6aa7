"""docs/training.md: what Gauss-Newton needs to reach the rmse that Adam ends at, on RK2 of ten evaluations and the
error at the end."""

import json

import page
from bespoke import MODELS, at_once, equivalents

LEARNING_RATES = ["5e-3", "1e-2", "2e-2"]
RK2 = ["--family", "rk2", "--nfe", 10]
ADAM = ["--optimizer", "adam"]
GAUSS_NEWTON = ["--batch", 200, "--pool", 500, "--iterations", 30, "--validate-every", 1]
FORWARD = ["--optimizer", "forward-gauss-newton", "--pool", 500, "--iterations", 30, "--validate-every", 1]


def trained(work, model, name, *options):
    out = work.train(work.path(model, "optimizers", f"{name}.json"), model, *RK2, *options)
    return json.loads(out.read_text())["training"]


def without_validation(notes, spent, validations):
    """Evaluations for training alone: the ground truth of the pool, and the iterations."""
    count = notes["validation"]["count"]
    truth = notes["ground_truth_evaluations"] * count / (count + notes["pool"])
    return spent - truth - validations * count * 10


def reached(notes, target, cost):
    """Cells of what it takes to come to a rmse, beside a cost, and of the rmse in the end."""
    for i, (spent, rmse) in enumerate(notes["log"]):
        if rmse <= target:
            own = without_validation(notes, spent, i + 1)
            cells = [f"{own / 1e6:.3f} ({i})", f"{own / cost:.3f}"]
            break
    else:
        cells = ["not reached", "–"]
    return [*cells, f"{notes['validation']['rmse']:.5f}"]


def row(work, model):
    adam = min(
        (trained(work, model, f"adam-{lr}", *ADAM, "--lr", lr) for lr in LEARNING_RATES),
        key=lambda notes: notes["validation"]["rmse"],
    )
    target = adam["validation"]["rmse"]
    cost = without_validation(adam, equivalents(adam["evaluations"]), len(adam["log"]))
    cells = [f"`{model}`", f"{adam['start']['rmse']:.5f}", f"{target:.5f} ({adam['lr']:g})", f"{cost / 1e6:.2f}"]
    for name, options in (("gauss-newton", GAUSS_NEWTON), ("forward", FORWARD)):
        cells += reached(trained(work, model, name, *options), target, cost)
    return cells


def write(work):
    jobs = [
        lambda model=model, lr=lr: trained(work, model, f"adam-{lr}", *ADAM, "--lr", lr)
        for model in MODELS
        for lr in LEARNING_RATES
    ]
    at_once(jobs)
    heading = [
        "model",
        "midpoint@10",
        "Adam's rmse (its lr)",
        "its evaluations, millions",
        "Gauss-Newton's to reach it (iterations)",
        "share",
        "Gauss-Newton's rmse in the end",
        "forward passes' to reach it (iterations)",
        "share",
        "forward passes' rmse in the end",
    ]
    page.replace("docs/training.md", "optimizers", page.table(heading, at_once([lambda m=m: row(work, m) for m in MODELS])))
