"""Adafactor: beside its equations in float64, and torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _kit.bits import normal

import xpopt
from xpopt import Adafactor

SHAPES = [(), (6,), (7, 5), (5, 1), (2, 3, 4), (0, 3), (0,)]
on_numpy = pytest.mark.backends("numpy")
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x)))) if x.size else 0.0


def steps(
    x: Any, grads: list[Any], *, lr=0.01, power=0.8, threshold=1.0, least=1e-3, eps=1e-30, decay1=0.0
) -> list[Any]:
    """The parameter after each step: the equations in the paper's words."""
    path, row, col, var, mean = [], 0.0, 0.0, 0.0, 0.0
    for t, g in enumerate(grads, 1):
        kept = 1 - t**-power
        if g.ndim > 1 and g.size:
            row = kept * row + (1 - kept) * np.mean(g * g + eps, -1)
            col = kept * col + (1 - kept) * np.mean(g * g + eps, -2)
            var = np.einsum("...r,...c->...rc", row, col) / np.mean(row, -1)[..., None, None]
        else:
            var = kept * var + (1 - kept) * (g * g + eps)
        step = g / np.sqrt(var)
        step = min(lr, t**-0.5) * max(least, rms(x)) * step / max(1, rms(step) / threshold)
        mean = decay1 * mean + (1 - decay1) * step
        x = x - mean
        path.append(x)
    return path


@on_numpy
@pytest.mark.parametrize(
    "settings", [{}, {"lr": 0.5, "power": 0.5, "threshold": 0.25, "least": 2.0, "eps": 0.5}, {"decay1": 0.75}]
)
@every_shape
def test_it_is_the_papers_equations(backend, shape, settings):
    rng = np.random.default_rng(1)
    x, *grads = (np.asarray(normal(rng, shape)) for _ in range(6))
    opt = Adafactor(**settings)
    for grad, want in zip(grads, steps(x, grads, **settings), strict=True):
        x = opt.update(x, grad, "W")
        np.testing.assert_allclose(x, want, rtol=1e-12, atol=1e-13)


@on_numpy
@every_shape
def test_it_is_what_torch_computes(backend, shape):
    torch = pytest.importorskip("torch")
    if 0 in shape:
        assert Adafactor().update(np.zeros(shape), np.zeros(shape), "W").shape == shape  # torch divides by the size
        return
    rng = np.random.default_rng(2)
    x, *grads = (np.asarray(normal(rng, shape)) for _ in range(6))
    theirs = torch.nn.Parameter(torch.tensor(x))
    peer = torch.optim.Adafactor([theirs], lr=0.3, beta2_decay=-0.7, eps=(1e-30, 1e-2), d=1.25, weight_decay=0.1)
    opt = Adafactor(lr=0.3, power=0.7, least=1e-2, threshold=1.25, weight_decay=0.1)
    for grad in grads:
        x = opt.update(x, grad, "W")
        theirs.grad = torch.tensor(grad)
        peer.step()
    np.testing.assert_allclose(x, theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.any_width
@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_every_library_computes_it(backend, scale):
    rng = np.random.default_rng(3)
    model = {f"{shape}": np.asarray(normal(rng, shape), np.float32) for shape in SHAPES}
    grads = {
        name: [np.asarray(scale * normal(rng, x.shape), np.float32) for _ in range(3)] for name, x in model.items()
    }
    opt, params = Adafactor(), {name: backend.array(x) for name, x in model.items()}
    for k in range(3):
        params = opt.update_all(params, {name: backend.array(grads[name][k]) for name in model})
    for name, x in model.items():
        want = steps(x.astype(float), [grad.astype(float) for grad in grads[name]])[-1]
        np.testing.assert_allclose(backend.numpy(params[name]), want, rtol=0, atol=1e-5)


@on_numpy
def test_what_is_kept_and_that_it_goes_on(backend):
    x, b = np.ones((3, 4)), np.ones(4)
    opt = Adafactor(lr=0.5)
    params = opt.update_all({"W": x, "b": b}, {"W": x, "b": b})
    assert {name: slot.shape for name, slot in opt.cache["W"].items() if name != "t"} == {"row": (3, 1), "col": (1, 4)}
    assert list(opt.cache["b"]) == ["t", "var"]
    twin = xpopt.make_optimizer(str(opt))
    twin.load_state_dict(opt.state_dict())
    new, again = (one.update_all(params, {"W": 2 * x, "b": b}) for one in (opt, twin))
    assert all(new[name].tobytes() == again[name].tobytes() for name in params)


@on_numpy
def test_a_mean_of_steps_may_come_and_go(backend):
    """The mean squares go on, and the mean starts at 0; without it there is no array for it."""
    rng = np.random.default_rng(7)
    params, grads = ([normal(rng, (4, 3)), normal(rng, (3,))] for _ in range(2))
    opt = Adafactor(lr=0.1)
    params = opt.update_all(params, grads)
    kept = opt.copy().cache[0]["row"].copy()
    opt.set_params({"decay1": 0.5})
    opt.update_all(params, [0 * x for x in grads])
    assert opt.cache[0].keys() == {"t", "row", "col", "mean"}
    np.testing.assert_allclose(opt.cache[0]["row"], (1 - 2**-0.8) * kept + 2**-0.8 * 1e-30, rtol=1e-14)
    opt.set_params({"decay1": 0.0})
    opt.update_all(params, grads)
    assert opt.cache[1].keys() == {"t", "var"}


@pytest.mark.any_width
@pytest.mark.parametrize("decay1", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(3, 4), (5,)], ids=str)
def test_squares_that_would_overflow_are_left_out(backend, shape, decay1):
    opt = Adafactor(nonfinite="skip", decay1=decay1)
    x, grad = (backend.array(np.full(shape, value), "float32") for value in (1.0, 3e19))
    new = opt.update_all({"W": x}, {"W": grad})["W"]
    assert (backend.numpy(new) == 1.0).all()
    assert opt.skipped == 1
    new = opt.update_all({"W": x}, {"W": backend.array(np.full(shape, 1e15), "float32")})["W"]
    assert np.isfinite(backend.numpy(new)).all()
    assert (backend.numpy(new) < 1.0).all()
    assert opt.skipped == 1
