"""SOAP: beside its equations in float64, element by element of products that are sums over indices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from _kit.bits import normal

import xpopt
from xpopt import SOAP, AdamW

on_numpy = pytest.mark.backends("numpy")


def product(*matrices: Any) -> Any:
    """The product of matrices, each element a sum that is rounded once."""
    x, *others = matrices
    for y in others:
        x = np.array([[math.fsum(x[i, :] * y[:, j]) for j in range(y.shape[1])] for i in range(len(x))])
    return x


def orthogonal(s: Any) -> Any:
    """The orthogonal factor of Gram and Schmidt, twice: columns up to their signs."""
    columns: list[Any] = []
    for column in s.T:
        for _ in range(2):
            for other in columns:
                column = column - math.fsum(column * other) * other
        columns.append(column / math.sqrt(math.fsum(column * column)))
    return np.array(columns).T


def steps(
    x: Any, grads: list[Any], bases: Any, *, lr: float, decay1: float, decay2: float, eps: float, every: int
) -> Any:
    """The parameter after each step from the second one on; `bases` are those after the first."""
    left, right = ((1 - decay2) * product(*of) for of in ((grads[0], grads[0].T), (grads[0].T, grads[0])))
    rows, cols = bases
    mean, var, path = np.zeros_like(x), np.zeros_like(x), []
    for n, grad in enumerate(grads[1:], 1):
        mean = decay1 * mean + (1 - decay1) * grad
        var = decay2 * var + (1 - decay2) * product(rows.T, grad, cols) ** 2
        scaled = product(rows.T, mean, cols) / (1 - decay1**n) / np.sqrt(var / (1 - decay2**n) + eps)
        x = x - lr * product(rows, scaled, cols.T)
        path.append(x)
        left = decay2 * left + (1 - decay2) * product(grad, grad.T)
        right = decay2 * right + (1 - decay2) * product(grad.T, grad)
        if n % every == 0:
            rows, cols = orthogonal(product(left, rows)), orthogonal(product(right, cols))
    return path


@on_numpy
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (1, 3), (2, 1)], ids=str)
def test_it_is_algorithm_3(backend, shape):
    """The first bases are eigenvectors of what they are to be of; with them, the steps are those of the paper."""
    rng = np.random.default_rng(sum(shape))
    x, *grads = (normal(rng, shape) for _ in range(12))
    settings: dict[str, Any] = {"lr": 0.1, "decay1": 0.8, "decay2": 0.7, "eps": 1e-3, "every": 3}
    opt = SOAP(**settings)
    assert (opt.update(x, grads[0], "W") == x).all()
    entry = opt.cache["W"]
    for basis, square in ((entry["left_basis"], grads[0] @ grads[0].T), (entry["right_basis"], grads[0].T @ grads[0])):
        np.testing.assert_allclose(basis.T @ basis, np.eye(len(basis)), rtol=0, atol=1e-13)
        turned = basis.T @ square @ basis
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), rtol=0, atol=1e-12)
    bases = entry["left_basis"].copy(), entry["right_basis"].copy()
    for grad, want in zip(grads[1:], steps(x, grads, bases, **settings), strict=True):
        x = opt.update(x, grad, "W")
        np.testing.assert_allclose(x, want, rtol=0, atol=1e-9)


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax")  # Dask has no eigh
def test_libraries_agree(backend):
    """Of a square matrix, whose eigenvectors are its own up to signs."""
    rng = np.random.default_rng(2)
    x, *grads = (normal(rng, (4, 4)).astype(np.float32) for _ in range(6))
    ours, theirs, y = SOAP(lr=0.1, every=2), SOAP(lr=0.1, every=2), backend.array(x)
    for grad in grads:
        x = theirs.update(x.astype(float), grad.astype(float), "W")
        y = ours.update(y, backend.array(grad), "W")
    np.testing.assert_allclose(backend.numpy(y), x, rtol=0, atol=1e-3)


@on_numpy
def test_it_goes_on_with_others_after_a_copy_and_a_file(backend):
    rng = np.random.default_rng(3)
    params = {"W": normal(rng, (4, 3)), "b": normal(rng, (3,)), "none": normal(rng, (0, 3))}
    grads = [{name: normal(rng, x.shape) for name, x in params.items()} for _ in range(6)]
    opt = SOAP(lr=0.1, every=2, others=AdamW(lr=0.25))
    for grad in grads[:3]:
        params = opt.update_all(params, grad)
    twins = [opt.copy(), xpopt.make_optimizer(str(opt))]
    twins[1].load_state_dict(opt.state_dict())
    assert str(twins[1]) == str(opt)
    assert "every=2" in str(opt)
    results = []
    for one in (opt, *twins):
        x = params
        for grad in grads[3:]:
            x = one.update_all(x, grad)
        results.append(x)
    assert all(x[name].tobytes() == results[0][name].tobytes() for x in results for name in params)
    assert opt.cache["b"].keys() == {"t", "mean", "var"}


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax")
def test_products_that_would_overflow_are_left_out(backend):
    opt = SOAP(lr=0.1, nonfinite="skip")
    x, huge, grad = (backend.array(np.full((3, 4), value), "float32") for value in (1.0, 3e19, 1e15))
    for k, skipped in ((grad, 0), (huge, 1), (grad, 1)):
        x = opt.update_all({"W": x}, {"W": k})["W"]
        assert opt.skipped == skipped
    assert np.isfinite(backend.numpy(x)).all()
    assert (backend.numpy(x) != 1.0).any()


@pytest.mark.backends("numpy", "array-api-strict", "torch", "jax")
def test_a_first_gradient_that_is_left_out_stops_nothing(backend):
    """Not where a device counts the step either: the axes are then the first basis, of a diagonal an exact one."""
    opt = SOAP(lr=0.1, every=100, nonfinite="skip")
    x = backend.array(np.zeros((2, 2)), "float32")
    for value in (np.nan, 1.0, 1.0):
        x = opt.update_all([x], [backend.array(np.diag([value, 2.0]), "float32")])[0]
    steps = backend.numpy(x)
    assert (np.diag(steps) < -0.05).all()
    assert (steps[[0, 1], [1, 0]] == 0.0).all()
    assert opt.skipped == 1


@on_numpy
def test_a_wrong_frequency_or_shape_is_told(backend):
    for every, error in ((0, ValueError), (2.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="SOAP: every="):
            SOAP(every=every)
    with pytest.raises(ValueError, match=r"SOAP updates parameters with 2 axes, and 'b' has shape \(3,\)"):
        SOAP().update(np.zeros(3), np.zeros(3), "b")
