"""Gradients of a loss that was multiplied."""

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.rows import on_numpy

import xpopt
from xpopt import SGD, Adam

SCALE = 1024.0
OPTIONS = {
    "alone": {},
    "clipped": {"clip_norm": 0.5},
    "clipped by value and norm": {"clip_value": 0.25, "clip_norm": 0.5},
    "accumulated": {"accumulate": 2, "clip_norm": 0.5},
    "guarded": {"nonfinite": "raise", "clip_norm": 0.5, "l2": 0.125},
    "other groups": {"groups": {"b": SGD(lr=0.5, momentum=0.5), "W": {"clip_norm": 0.25}}},
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("engine", ["eager", "blocked", pytest.param("compiled", marks=pytest.mark.numba)])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_power_of_two_changes_no_bit(options, engine):
    """Of the parameters of an optimizer that gets the gradients as they are."""
    scaled, plain = Adam(lr=0.125, loss_scale=SCALE, **options), Adam(lr=0.125, **options)
    rng = np.random.default_rng(4)
    params = want = {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=4)}
    with xpopt.engine(engine):
        for _ in range(4):
            grads = {name: rng.normal(size=x.shape) for name, x in params.items()}
            params = scaled.update_all(params, {name: x * SCALE for name, x in grads.items()})
            want = plain.update_all(want, grads)
            assert same_bits(params, want)
    assert same_bits(scaled.cache, plain.cache)
    rows = zip(scaled.explain(params), plain.explain(params), strict=True)
    assert all(one.engine == other.engine for one, other in rows)


def test_on_every_library(backend):
    for way in ("update", "update_all"):
        opt, x = SGD(lr=0.5, loss_scale=8.0, clip_norm=1.0), backend.array([1.0, 2.0])
        grad = backend.array([0.0, 32.0])
        new = opt.update(x, grad, 0) if way == "update" else opt.update_all([x], [grad])[0]
        np.testing.assert_allclose(backend.numpy(new), [1.0, 1.5], rtol=1e-6)


@on_numpy
def test_a_gradient_that_16_bits_would_lose(backend):
    grad = cast([2.0**-26], "float32")  # below the least of float16
    lost = SGD(lr=1.0, master=True).update(cast([0.0], "float16"), cast(grad, "float16"), "W")
    opt = SGD(lr=1.0, loss_scale=2.0**16, master=True)
    opt.update(cast([0.0], "float16"), cast(grad * 2.0**16, "float16"), "W")
    assert lost.tolist() == [0.0]
    assert opt.cache["W"]["master"].tolist() == [-(2.0**-26)]


@pytest.mark.backends("numpy")
def test_the_limits_of_products_are_of_the_gradient_of_the_loss():
    zero = np.zeros(2, np.float32)
    for size, skipped in ((1e21, 0), (1e24, 1)):  # of which the first is 1e18 without the scale, and its square finite
        opt = Adam(nonfinite="skip", loss_scale=1000.0)
        opt.update(zero, np.full(2, size, np.float32), "W")
        assert opt.skipped == skipped


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), True, "dynamic", None])
def test_what_is_no_scale(value):
    opt = Adam(loss_scale=2.0)
    for make in (lambda: Adam(loss_scale=value), lambda: opt.set_params({"loss_scale": value})):
        with pytest.raises((ValueError, TypeError), match=r"Adam: loss_scale=.* wanted a finite number in \(0, inf\)"):
            make()
    with pytest.raises(TypeError, match=r"groups\['W'\] has loss_scale, which is for all parameters of a step"):
        Adam(groups={"W": {"loss_scale": 2.0}})
    assert opt.loss_scale == 2.0
