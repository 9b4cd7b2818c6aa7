"""The first thing a user does, with nothing but what `pip install` brought: run by `make test-wheel`, not by pytest."""

import sys

import bespoke_solver as bespoke
import numpy as np


def velocity(t, x):
    """u_t(x) = -(1 + t) x, whose exact end is x(0) exp(-3/2)."""
    return -(1 + t)[:, None] * x


x0 = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
exact = x0 * np.exp(-1.5)
errors = {}
learned = bespoke.train(velocity, shape=[3], family="rk2", steps=2, iterations=10, pool=100, batch=100, validation=50, progress=False)
for name, theta in (("midpoint", bespoke.solver("midpoint", 4)), ("rk2", learned)):
    errors[name] = float(np.sqrt(np.mean((bespoke.sample(theta, x0, velocity) - exact) ** 2)))
assert learned.nfe == 4 and errors["rk2"] < 0.2 * errors["midpoint"] < 0.2, errors

sampler = bespoke.Sampler(bespoke.solver("midpoint", 4))
sampler.start(x0)
while (asked := sampler.query()) is not None:
    sampler.update(velocity(*asked))
difference = float(np.sqrt(np.mean((sampler.finish() - exact) ** 2)))
assert abs(difference - errors["midpoint"]) < 1e-6, (difference, errors)
print(f"Python {sys.version.split()[0]}, numpy {np.__version__}, libbespoke {bespoke.__version__}: "
      f"rmse {errors['rk2']:.1e}, midpoint {errors['midpoint']:.5f}")  # fmt: skip
