"""Where sharpness-aware minimization takes its second gradient: a step of one length for the whole model."""

import math

import numpy as np
import pytest
from _kit.trajectories import UNIT, read

import xpopt
from xpopt import climb


def flat(backend, tree):
    return [read(backend, x).ravel().tolist() for x in (tree["W"], *tree["deep"])]


def model(backend, dtype, scale=1.0):
    """The gradients are 13 long together, times the scale."""
    params = {"W": backend.array([[1.0, -2.0]], dtype), "deep": [backend.array(0.5, dtype), backend.array([], dtype)]}
    grads = {"W": backend.array([[3 * scale, -4 * scale]], dtype), "deep": [backend.array(12 * scale, dtype), None]}
    return params, grads


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.any_width
def test_it_is_rho_long_whatever_the_gradients(backend, scale):
    for dtype in {"float32", backend.widest}:
        params, grads = model(backend, dtype, scale)
        for rho in (0.0, 0.25, 26.0):
            new = climb(params, grads, rho)
            want = [[1 + rho * 3 / 13, -2 - rho * 4 / 13], [0.5 + rho * 12 / 13], []]
            for got, values in zip(flat(backend, new), want, strict=True):
                assert got == pytest.approx(values, rel=8 * UNIT[dtype])
            assert new["W"].dtype == params["W"].dtype
            assert new["deep"][1] is params["deep"][1]  # its gradient is None
        assert flat(backend, params) == [[1.0, -2.0], [0.5], []]


@pytest.mark.backends("numpy", "torch", "jax", "dask")
def test_low_precision_is_rounded_once(backend):
    for dtype in {"float16", "bfloat16"} & set(backend.dtypes):
        params, grads = {"W": backend.array([1.0, 2.0], dtype)}, {"W": backend.array([3.0, 4.0], "float32")}
        new = climb(params, grads, 0.25)["W"]
        assert new.dtype == params["W"].dtype
        want = read(backend, backend.array([1 + 0.15, 2 + 0.2], dtype))
        assert read(backend, new).tolist() == want.tolist()


def test_gradients_of_zero_leave_parameters_and_what_is_not_finite_shows(backend):
    params, grads = model(backend, backend.widest, 0.0)
    assert flat(backend, climb(params, grads, 0.5)) == flat(backend, params)
    for bad in (math.nan, math.inf):
        new = climb(params, {"W": backend.array([[bad, 0.0]]), "deep": [grads["deep"][0], None]}, 0.5)
        assert np.isnan(np.concatenate(flat(backend, new)[:2])).all()


@pytest.mark.backends("numpy")
def test_floats_come_back_as_floats_and_nothing_is_nothing():
    new = climb([1.0, np.array([2.0])], [3.0, np.array([4.0])], 0.5)
    assert type(new[0]) is float
    assert (new[0], new[1].tolist()) == (pytest.approx(1.3), [pytest.approx(2.4)])
    assert climb({"embed": "anything"}, {"embed": None}, 0.5) == {"embed": "anything"}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("params", "grads", "rho", "error", "words"),
    [
        ([np.ones(2)], [np.ones(3)], 0.1, ValueError, r"gradient of 0 has shape \(3,\), the parameter has \(2,\)"),
        ({"W": np.ones(2)}, {"V": np.ones(2)}, 0.1, ValueError, "grads lacks 'W' and has 'V', not in params"),
        ({"W": np.ones(2)}, {"W": np.ones(2, int)}, 0.1, TypeError, "gradient of 'W' "),
        (np.ones(2), np.ones(2), 0.1, TypeError, "params is a ndarray; wanted a mapping, list or tuple"),
        ([np.ones(2)], [np.ones(2)], -0.1, ValueError, "climb: rho=-0.1 is out of range"),
        ([np.ones(2)], [np.ones(2)], "far", TypeError, "climb: rho='far' is a str; wanted a finite number"),
    ],
)
def test_what_cannot_be_is_told(params, grads, rho, error, words):
    with pytest.raises(error, match=words):
        climb(params, grads, rho)


@pytest.mark.backends("numpy")
def test_two_gradients_a_step_are_those_of_the_paper():
    """Of half the square of each element: w - lr (w + rho w / |w|)."""
    params, w, opt = {"w": np.array([3.0, -4.0])}, np.array([3.0, -4.0]), xpopt.SGD(lr=0.125)
    for _ in range(3):
        params = opt.update_all(params, climb(params, params, 0.5))
        w = w - 0.125 * (w + 0.5 * w / math.hypot(*w))
        assert params["w"] == pytest.approx(w, rel=1e-15)
