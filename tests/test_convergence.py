"""Every optimizer finds the bottom of a valley, from a fixed start and without chance."""

import numpy as np
import pytest
from _kit.rows import rows
from _kit.table import BY_LABEL, CASES

import xpopt

START = np.array([-1.2, 1.0])  # Rosenbrock's own

# How each is set, its steps, and the height it must come below; at the start it is 24.2.
ROSENBROCK = [
    (xpopt.SGD, {"lr": 1e-3}, 20000, 1e-5),
    (xpopt.SGD, {"lr": 1e-3, "momentum": 0.9}, 5000, 1e-5),
    (xpopt.SGD, {"lr": 2e-3, "momentum": 0.9, "clip_norm": 10.0}, 3000, 1e-5),
    (xpopt.AdaGrad, {"lr": 0.5}, 20000, 1e-5),
    (xpopt.RMSProp, {"lr": 0.01, "lr_scheduler": "ExponentialScheduler(stage_length=3000)"}, 10000, 1e-5),
    (xpopt.Adam, {"lr": 0.02}, 3000, 1e-5),
    (xpopt.Adam, {"lr_scheduler": "NoamScheduler(model_dim=16, scale_factor=4, warmup_steps=400)"}, 6000, 1e-5),
    (xpopt.Adam, {"lr": 0.05, "lr_scheduler": "KingScheduler(patience=50, decay=0.95)"}, 3000, 1e-5),
]


def rosenbrock(x):
    return float((1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2)


def slope(x):
    return np.array([-2 * (1 - x[0]) - 400 * x[0] * (x[1] - x[0] ** 2), 200 * (x[1] - x[0] ** 2)])


def test_every_optimizer_is_tried():
    assert {cls for cls, *_ in ROSENBROCK} == {case.optimizer for case in CASES}


@pytest.mark.parametrize(("cls", "settings", "steps", "height"), ROSENBROCK)
def test_rosenbrock(cls, settings, steps, height):
    opt, x = cls(**settings), START
    for _ in range(steps):
        x = opt.update(x, slope(x), "x", rosenbrock(x))
        opt.step()
    assert rosenbrock(x) <= height
    assert np.allclose(x, 1, atol=30 * height**0.5)


@pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "jax", "jax-x64", "cupy")
@pytest.mark.parametrize("case", rows(BY_LABEL, ["Adam"]))
def test_least_squares(backend, case):
    """A plane through points: two parameters of two shapes, the whole model at once."""
    rng = np.random.default_rng(8)
    points = rng.normal(size=(40, 3))
    values = points @ np.array([1.5, -2.0, 0.5]) + 0.75
    lr = {xpopt.SGD: 0.1, xpopt.AdaGrad: 1.0}.get(case.optimizer, 0.3)
    opt = case.optimizer(lr=lr, **case.arguments, lr_scheduler="ExponentialScheduler(stage_length=100, decay=0.2)")
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
