"""Gradients whose rows have a mean of zero."""

from __future__ import annotations

import numpy as np
import pytest
from _kit.bits import normal

import xpopt

SHAPES = [(), (5,), (3, 4), (4, 1), (2, 3, 5), (0, 3), (3, 0)]
on_numpy = pytest.mark.backends("numpy")


def centred(grad):
    """Row by row, in Python's numbers."""
    if grad.ndim < 2 or not grad.size:
        return grad
    return np.stack([row - sum(map(float, row.ravel())) / row.size for row in grad])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.any_width
def test_each_row_loses_its_mean_and_what_has_no_rows_stays(backend, shape):
    rng = np.random.default_rng(1)
    x, grad = (normal(rng, shape).astype(np.float32) for _ in range(2))
    new = xpopt.SGD(lr=0.5, centralize=True).update(backend.array(x), backend.array(grad), "W")
    want = x.astype(float) - 0.5 * centred(grad.astype(float))
    np.testing.assert_allclose(backend.numpy(new), want, rtol=0, atol=1e-6)


@on_numpy
def test_it_comes_after_clipping_and_before_l2(backend):
    x, grad = np.array([[1.0, -2.0]]), np.array([[3.0, 1.0]])
    opt = xpopt.SGD(lr=1.0, centralize=True, l2=0.5, clip_value=2.0)
    assert opt.update(x, grad, "W").tolist() == [[1 - 0.5 - 0.5, -2 + 0.5 + 1.0]]


@on_numpy
@pytest.mark.usefixtures("fused")
def test_it_runs_eagerly_unwarned_and_is_a_setting_as_any(backend):
    opt = xpopt.Adam(centralize=True, groups={"b": {"centralize": False}})
    params = {"W": np.ones((2, 2)), "b": np.ones((2, 2))}
    opt.update_all(params, params)
    assert "centralize takes the mean of each row" in str(opt.explain(params))
    assert xpopt.make_optimizer(str(opt)).hyperparameters == opt.hyperparameters
    opt.set_params({"centralize": False})
    assert opt._parts.settings.rule is xpopt.Adam()._parts.settings.rule


@on_numpy
def test_overflow_and_complex_parameters_are_told(backend):
    largest = np.finfo(np.float32).max
    opt = xpopt.SGD(centralize=True, nonfinite="skip")
    x = np.ones((1, 2), np.float32)
    assert (opt.update(x, np.array([[np.nan, 1]], np.float32), "W") == x).all()
    assert np.isfinite(opt.update(x, np.array([[largest, 0]], np.float32) / 4, "W")).all()
    with pytest.raises(ValueError, match=r"centralize=True is for real parameters, and 'c' is complex128"):
        xpopt.SGD(centralize=True).update(np.ones((2, 2), complex), np.ones((2, 2), complex), "c")
