"""Muon: beside its polynomial of singular values in float64, and with another optimizer for what is no matrix."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from _kit.bits import normal

import xpopt
from xpopt import AdamW, Muon

SHAPES = [(7, 5), (5, 7), (4, 4), (1, 6), (6, 1), (0, 3), (3, 0)]
on_numpy = pytest.mark.backends("numpy")


def orthogonal(matrix: Any, eps: float) -> Any:
    """The same singular vectors, and the polynomial of Newton and Schulz of each singular value."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    x = values / (math.sqrt(math.fsum(values**2)) + eps)
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return (u * x) @ v


def steps(start: Any, grads: list[Any], *, lr=0.02, momentum=0.95, eps=1e-7, nesterov=True) -> list[Any]:
    """The parameter after each step."""
    x, mean, path = start, np.zeros_like(start), []
    rows, cols = start.shape
    for grad in grads:
        mean = momentum * mean + (1 - momentum) * grad
        direction = momentum * mean + (1 - momentum) * grad if nesterov else mean
        factor = lr * math.sqrt(max(1, rows / cols if cols else 1))
        x = x - factor * (orthogonal(direction, eps) if start.size else direction)
        path.append(x)
    return path


SETTINGS: list[dict[str, Any]] = [
    {},
    {"lr": 0.1, "momentum": 0.8, "eps": 0.25, "nesterov": False},
]


@on_numpy
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_a_polynomial_of_singular_values(backend, shape, settings):
    rng = np.random.default_rng(1)
    x, *grads = (normal(rng, shape) for _ in range(6))
    opt = Muon(**settings)
    for grad, want in zip(grads, steps(x, grads, **settings), strict=True):
        x = opt.update(x, grad, "W")
        np.testing.assert_allclose(x, want, rtol=0, atol=1e-9)


def test_every_library_computes_it(backend):
    rng = np.random.default_rng(2)
    model = {f"{shape}": normal(rng, shape).astype(np.float32) for shape in ((7, 5), (5, 7))}
    grads = {name: [normal(rng, x.shape).astype(np.float32) for _ in range(3)] for name, x in model.items()}
    opt, params = Muon(), {name: backend.array(x) for name, x in model.items()}
    for k in range(3):
        params = opt.update_all(params, {name: backend.array(grads[name][k]) for name in model})
    for name, x in model.items():
        want = steps(x.astype(float), [grad.astype(float) for grad in grads[name]])[-1]
        np.testing.assert_allclose(backend.numpy(params[name]), want, rtol=0, atol=1e-5)


@on_numpy
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_what_torch_computes_in_fewer_bits(backend, nesterov):
    """Torch iterates in bfloat16, whose roundings grow by the slope of the polynomial, 3.4 at 0."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    x, *grads = (normal(rng, (6, 4)) for _ in range(4))
    theirs = torch.nn.Parameter(torch.tensor(x))
    peer = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    opt = Muon(lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    for grad in grads:
        x = opt.update(x, grad, "W")
        theirs.grad = torch.tensor(grad)
        peer.step()
    np.testing.assert_allclose(x, theirs.detach().numpy(), rtol=0, atol=3 * 0.02 * 0.05)


@on_numpy
def test_zeros_move_nothing_and_huge_gradients_are_as_any(backend):
    x, grad = np.ones((3, 2), np.float32), np.array([[3, 1], [0, 2], [1, 1]], np.float32)
    assert (Muon().update(x, 0 * x, "W") == x).all()
    want = steps(x.astype(float), [grad.astype(float)])[0]
    np.testing.assert_allclose(Muon().update(x, grad * np.float32(1e30), "W"), want, rtol=0, atol=1e-5)


@on_numpy
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_what_is_no_matrix_is_refused_by_name(backend, shape):
    opt, x = Muon(), np.ones(shape)
    for update in (opt.update, lambda x, grad, name: opt.update_all({name: x}, {name: grad})):
        with pytest.raises(ValueError, match=r"2 axes, and 'enc' has shape .*groups=\{'enc': AdamW\(\)\}"):
            update(x, x, "enc")
    assert opt.cache == {}
    assert opt.cur_step == 0


@on_numpy
@pytest.mark.usefixtures("fused")
def test_another_optimizer_takes_the_rest(backend):
    """Unwarned, and after a copy, a file and a text as if there had been none."""
    rng = np.random.default_rng(4)
    make = functools.partial(normal, rng)
    params = {"W": make((4, 3)), "b": make((3,)), "embed": make((5, 2))}
    grads = {name: make(x.shape) for name, x in params.items()}
    opt = Muon(groups={"b": AdamW(lr=0.25, weight_decay=0.5), "embed": AdamW(lr=0.125)})
    alone = AdamW(lr=0.25, weight_decay=0.5), AdamW(lr=0.125), Muon()
    first = opt.update_all(params, grads)
    wanted = {
        name: one.update(params[name], grads[name], name) for name, one in zip(("b", "embed", "W"), alone, strict=True)
    }
    assert all(first[name].tobytes() == wanted[name].tobytes() for name in params)
    twins = [opt.copy(), xpopt.make_optimizer(str(opt))]
    twins[1].load_state_dict(opt.state_dict())
    second = opt.update_all(first, grads)
    for twin in twins:
        assert str(twin) == str(opt)
        again = twin.update_all(first, grads)
        assert all(again[name].tobytes() == second[name].tobytes() for name in params)


@on_numpy
def test_its_settings_may_be_schedules(backend):
    rng = np.random.default_rng(5)
    x, first, second = (normal(rng, (4, 3)) for _ in range(3))
    opt = Muon(lr=xpopt.schedulers.linear(0.5, 0.25, steps=1), momentum=xpopt.schedulers.linear(0.5, 0.75, steps=1))
    got = x
    for grad in (first, second):
        got = opt.update_all({"W": got}, {"W": grad})["W"]
    mean = 0.5 * first
    x = x - 0.5 * math.sqrt(4 / 3) * orthogonal(0.5 * mean + 0.5 * first, 1e-7)
    mean = 0.75 * mean + 0.25 * second
    x = x - 0.25 * math.sqrt(4 / 3) * orthogonal(0.75 * mean + 0.25 * second, 1e-7)
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-9)
