"""Every optimizer finds the bottom of a valley, from a fixed start and without chance."""

import numpy as np
import pytest
from _kit.rows import rows
from _kit.table import BY_LABEL, ELSEWHERE, ROWS, SIGNATURES

import xpopt

pytestmark = pytest.mark.any_width

START = np.array([-1.2, 1.0])  # Rosenbrock's own

ROSENBROCK = [(row, *valley) for row in ROWS for valley in row.valleys]


def rosenbrock(x):
    return float((1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)


def slope(x):
    return np.array([-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)])


def test_every_optimizer_is_tried():
    """But those that follow an average, which is beside a way as bent as this one."""
    averages = {xpopt.ScheduleFreeSGD, xpopt.ScheduleFreeAdamW}
    assert {row.optimizer for row, *_ in ROSENBROCK} == set(SIGNATURES) - averages - set(ELSEWHERE)


@pytest.mark.parametrize(("case", "settings", "steps"), ROSENBROCK, ids=str)
def test_rosenbrock(case, settings, steps):
    opt, x = case.optimizer(**settings), START
    for _ in range(steps):
        x = opt.update(x, slope(x), "x", rosenbrock(x))
        opt.step()
    assert rosenbrock(x) <= 1e-5
    assert np.allclose(x, 1, atol=30 * 1e-5**0.5)


@pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "jax", "jax-x64", "cupy")
@pytest.mark.parametrize("case", rows(BY_LABEL, ["Adam"]))
def test_least_squares(backend, case):
    """A plane through points: two parameters of two shapes, the whole model at once."""
    rng = np.random.default_rng(8)
    points = rng.normal(size=(40, 3))
    values = points @ np.array([1.5, -2.0, 0.5]) + 0.75
    opt = case.make(lr=case.plane, lr_scheduler="ExponentialScheduler(stage_length=100, decay=0.2)")
    params = {"w": backend.array(np.zeros(3)), "b": backend.array(0.0)}
    losses = []
    for _ in range(250):
        w, b = backend.numpy(params["w"]), backend.numpy(params["b"])
        rest = points @ w + b - values
        losses.append(float(np.mean(rest**2)))
        grads = {"w": backend.array(2 * points.T @ rest / 40), "b": backend.array(2 * np.mean(rest))}
        params = opt.update_all(params, grads, losses[-1])
    assert losses[0] > 5
    assert losses[-1] < 1e-4
