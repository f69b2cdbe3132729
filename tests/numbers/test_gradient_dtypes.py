"""Gradients of another floating dtype than their parameter's are converted once, to the dtype of the arithmetic."""

import numpy as np
import pytest
from _kit.engines import MAKE
from _kit.states import frozen, same

import xpopt


def pairs(backend):
    return [(dtype, other) for dtype in backend.dtypes for other in backend.dtypes if dtype != other]


def arithmetic(dtype):
    return "float64" if dtype == "float64" else "float32"


def numbers(backend, dtype, shape=(3, 5), seed=1):
    """Numbers of a dtype, as float64."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return backend.numpy(backend.array(values, dtype)).reshape(shape)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_arithmetic_sees_the_gradient_rounded_once(backend, name):
    """As a gradient of float32 or float64 that holds these values; a parameter of 16 bits takes no more from it."""
    for dtype, other in pairs(backend):
        x, y = MAKE[name](), MAKE[name]()
        param = [backend.array(numbers(backend, dtype), dtype)] * 2
        for step in range(3):
            values = numbers(backend, other, seed=10 + step)
            grads = backend.array(values, other), backend.array(values, arithmetic(dtype))
            before = frozen(backend, grads)
            if step == 1:
                param = [opt.update(p, g, 0) for opt, p, g in zip((x, y), param, grads, strict=True)]
            else:
                param = [opt.update_all([p], [g])[0] for opt, p, g in zip((x, y), param, grads, strict=True)]
            assert frozen(backend, grads) == before
            assert param[0].dtype == backend.dtype(dtype)
            assert same(backend, *param)
        assert same(backend, x.cache, y.cache)


def test_parameters_of_16_bits_round_no_gradient(backend):
    """By hand: 3 * g is rounded where it is subtracted; a sum of squares, never."""
    for dtype in [dtype for dtype in backend.dtypes if dtype in ("float16", "bfloat16")]:
        g = numbers(backend, "float32", (50,))
        param, grad = backend.array(np.zeros(50), dtype), backend.array(g, "float32")
        new = xpopt.SGD(lr=3.0).update(param, grad, "W")
        exact = -np.float64(np.float32(3) * g.astype(np.float32))
        assert np.array_equal(backend.numpy(new), backend.numpy(backend.array(exact, dtype)))
        rounded = -3 * numbers(backend, dtype, (50,))
        assert not np.array_equal(backend.numpy(new), backend.numpy(backend.array(rounded, dtype)))
        opt = xpopt.AdaGrad()
        opt.update_all({"W": param}, {"W": grad})
        assert np.array_equal(backend.numpy(opt.cache["W"]), np.float64(np.square(g.astype(np.float32))))


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_every_engine_and_way_takes_them(backend, fused, clip_norm):
    """Beside others, with results in new arrays, in place and apart, in a plan that is kept, and where it ends."""
    opt, eager = xpopt.Adam(clip_norm=clip_norm), xpopt.Adam(clip_norm=clip_norm)
    kinds = {
        "a": ("float32", "float64"),
        "b": ("float64", "float32"),
        "c": ("float32", "float32"),
        "d": ("float16", "float32"),
    }
    params = {name: np.asarray(numbers(backend, dtype), dtype) for name, (dtype, _) in kinds.items()}
    want = {name: x.copy() for name, x in params.items()}
    for step in range(5):
        grads = {name: np.asarray(numbers(backend, other, seed=step), other) for name, (_, other) in kinds.items()}
        if step == 3:  # the usual ones in between
            grads = {name: x.astype(params[name].dtype) for name, x in grads.items()}
        out = {0: None, 1: params, 2: {name: np.empty_like(x) for name, x in params.items()}}.get(step)
        params = opt.update_all(params, grads, out=out)
        with xpopt.engine("eager"):
            want = eager.update_all(want, grads)
        if clip_norm is None:
            assert same(backend, params, want)
        else:
            assert all(np.allclose(params[name], want[name], rtol=1e-6, atol=1e-6) for name in kinds)
        new, x = (o.update(want["a"], grads["a"], "a") for o in (opt, eager))
        assert np.allclose(new, x, rtol=1e-6, atol=1e-6)


@pytest.mark.backends("numpy")
def test_what_is_beyond_the_arithmetic_is_not_finite(backend):
    W = np.zeros(2, np.float32)
    grads = [np.array([1e39, 1.0])]
    assert np.isinf(xpopt.SGD().update_all([W], grads)[0][0])
    for _ in range(2):  # anew, and by the plan
        opt = xpopt.SGD(nonfinite="skip")
        opt.update_all([W], [np.ones(2)])
        assert np.array_equal(opt.update_all([W], grads)[0], W)
        assert opt.skipped == 1
    with pytest.raises(FloatingPointError):
        xpopt.SGD(nonfinite="raise").update(W, grads[0], "W")
