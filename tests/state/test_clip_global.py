"""Clipping by the norm of a whole model, and by that of a parameter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from _kit.bits import compare, normal

import xpopt
from xpopt.clipping import clip_by_global_norm

on_numpy = pytest.mark.backends("numpy")
SHAPES = {"W": (7, 5), "b": (), "long": (131,), "none": (0,)}


def model(seed: int, scale: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: (scale * normal(rng, shape)).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_all_gradients_are_scaled_by_one_factor(backend, scale):
    """In float64 by hand; the joint norm is above the bound, and then below."""
    params, grads = model(1), model(2, scale)
    norm = math.sqrt(math.fsum(float(x) ** 2 for g in grads.values() for x in g.ravel()))
    opt = xpopt.SGD(lr=1.0, clip_global=0.5)
    arrays = [{name: backend.array(x) for name, x in of.items()} for of in (params, grads)]
    for name, new in opt.update_all(*arrays).items():
        wanted = params[name].astype(float) - min(1.0, 0.5 / norm) * grads[name].astype(float)
        np.testing.assert_allclose(backend.numpy(new), wanted, rtol=1e-6, atol=1e-7)


@on_numpy
def test_it_is_what_clipping_before_the_update_is(backend):
    params = {name: x.astype(np.float64) for name, x in model(1).items()}
    opt, other = xpopt.Adam(clip_global=0.5, clip_value=0.25), xpopt.Adam()
    mine = theirs = params
    for step in range(4):
        grads = {name: x.astype(np.float64) for name, x in model(step).items()}
        mine = opt.update_all(mine, grads)
        clipped = {name: np.clip(x, -0.25, 0.25) for name, x in grads.items()}
        theirs = other.update_all(theirs, clip_by_global_norm(clipped, 0.5))
    for name in params:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-12)


@on_numpy
@pytest.mark.parametrize(("large", "bound"), [(3e30, 1e-20), (3e-40, 1e-42), (3e20, 1e20)])
def test_what_can_be_represented_is_clipped_to_it(backend, large, bound):
    grads = [np.array([large], np.float32), np.array([large / 3 * 4], np.float32)]
    zeros = [np.zeros(1, np.float32)] * 2
    new = np.concatenate(xpopt.SGD(lr=1.0, clip_global=bound).update_all(zeros, grads)).astype(float)
    np.testing.assert_allclose(-new, [0.6 * bound, 0.8 * bound], rtol=1e-5, atol=3e-45)


@on_numpy
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_gradient_stays_visible_in_all(backend, bad):
    opt = xpopt.SGD(lr=1.0, clip_global=0.5)
    new = opt.update_all([np.zeros(2), np.zeros(2)], [np.array([bad, 1.0]), np.ones(2)])
    assert np.isnan(new).all()
    opt = xpopt.SGD(lr=1.0, clip_global=0.5, nonfinite="skip")
    new = opt.update_all([np.zeros(2), np.zeros(2)], [np.array([bad, 1.0]), np.ones(2)])
    assert (np.array(new) == 0).all()


@on_numpy
def test_zeros_stay_zeros(backend):
    new = xpopt.SGD(lr=1.0, clip_global=0.5, agc=0.1).update_all([np.ones(2)], [np.zeros(2)])
    assert new[0].tolist() == [1.0, 1.0]


def test_one_parameter_is_no_model(backend):
    x = backend.array(np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"h\.model.*use update_all"):
        xpopt.Adam(clip_global=1.0).update(x, x, "W")


@on_numpy
def test_groups_without_it_are_no_part_of_the_norm(backend):
    opt = xpopt.SGD(lr=1.0, clip_global=1.0, groups={"b": {"clip_global": None}, "c": {"clip_global": 0.5}})
    grads = {"a": np.array([3.0]), "b": np.array([100.0]), "c": np.array([4.0])}
    new = opt.update_all({name: np.zeros(1) for name in grads}, grads)
    assert {name: x.item() for name, x in new.items()} == pytest.approx({"a": -0.6, "b": -100.0, "c": -0.4})


@on_numpy
def test_it_is_a_setting_as_any(backend):
    opt = xpopt.Adam(clip_global=0.5, agc=xpopt.AGC(0.02, eps=0.5))
    assert xpopt.make_optimizer(str(opt)).hyperparameters == opt.hyperparameters
    assert "clip_global=0.5, agc=AGC(agc=0.02, eps=0.5)" in str(opt)
    opt.set_params({"clip_global": None, "agc": None})
    assert opt._parts.settings.rule is xpopt.Adam()._parts.settings.rule
    for wrong in ({"clip_global": 0}, {"clip_global": -1.0}, {"agc": 0.0}, {"agc": xpopt.EMA(0.9)}):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            xpopt.Adam(**wrong)


def test_a_gradient_is_no_longer_than_a_part_of_its_parameter(backend):
    params, grads = model(3), model(4)
    opt = xpopt.SGD(lr=1.0, agc=xpopt.AGC(0.25, eps=0.5))
    for name in params:
        new = backend.numpy(opt.update(backend.array(params[name]), backend.array(grads[name]), name))
        p, g = params[name].astype(float), grads[name].astype(float)
        largest, norm = 0.25 * max(np.linalg.norm(p.ravel()), 0.5), np.linalg.norm(g.ravel())
        wanted = p - (g if norm <= largest else g * largest / norm)
        np.testing.assert_allclose(new, wanted, rtol=1e-6, atol=1e-7)


@on_numpy
@pytest.mark.usefixtures("fused")
def test_bits_are_eager_numpys(backend):
    rng = np.random.default_rng(5)
    params = {name: normal(rng, shape).astype(np.float32) for name, shape in SHAPES.items()}
    walks = {}
    for engine in (None, "eager"):
        opt, values = xpopt.SGD(lr=0.1, momentum=0.9, clip_global=0.5, agc=0.125), params
        for step in range(3):
            if engine is None:
                values = opt.update_all(values, model(step))
            else:
                with xpopt.engine(engine):
                    values = opt.update_all(values, model(step))
        walks[engine] = values
    assert all(walks[None][name].tobytes() == walks["eager"][name].tobytes() for name in params)


@on_numpy
@pytest.mark.usefixtures("fused")
def test_bits_of_agc_are_eager_numpys_however_it_is_called(backend):
    compare(lambda: xpopt.SGD(agc=0.125), [(), (3, 5), (4097,)], "float16", 2)


SMALL_BESIDE_LARGE = [
    ([1e33, 1.42e35], [-4.975e-13], 2.0**53),
    ([1.5e29], [3.7e-13], 2.0**44),
    ([3e38, 3e38], [1e5], 1.0),  # whose norm is more than float32 holds
]


@on_numpy
@pytest.mark.parametrize(("large", "small", "bound"), SMALL_BESIDE_LARGE)
@pytest.mark.parametrize("engine", ["eager", "blocked"])
def test_small_elements_keep_their_digits_beside_a_large_norm(backend, large, small, bound, engine):
    """In float64 by hand."""
    grads = [np.array(x, np.float32) for x in (large, small)]
    norm = math.hypot(*large, *small)
    with xpopt.engine(engine):
        new = xpopt.SGD(lr=1.0, clip_global=bound).update_all([np.zeros_like(x) for x in grads], grads)
    for x, grad in zip(new, grads, strict=True):
        np.testing.assert_allclose(x.astype(float), -grad.astype(float) / norm * bound, rtol=1e-6)


@on_numpy
@pytest.mark.parametrize("engine", ["eager", "blocked"])
def test_float32_is_clipped_beside_float64_whose_norm_it_cannot_hold(backend, engine):
    grads = [np.array([3e200]), np.array([3e38], np.float32)]
    with xpopt.engine(engine):
        new = xpopt.SGD(lr=1.0, clip_global=1.0).update_all([np.zeros_like(x) for x in grads], grads)
    assert [x.tolist() for x in new] == [[-1.0], [0.0]]


@pytest.mark.any_width
def test_the_first_gradient_to_be_added_up_is_refused_already(backend):
    opt = xpopt.SGD(lr=1.0, clip_global=1.0, accumulate=2)
    x = backend.array(np.ones(3))
    with pytest.raises(TypeError, match=r"h\.model.*use update_all"):
        opt.update(x, x, "W")
    assert opt.cache == {}
    for _ in range(2):
        new = opt.update_all([x], [x])
    np.testing.assert_allclose(backend.numpy(new[0]), 1 - 3**-0.5, rtol=1e-6)


SHAPES_OF_UNITS = [(4, 3), (2, 2, 3, 5), (6,), (), (0, 3)]


def clipped_units(param: Any, grad: Any, axes: Any, part: float, eps: float) -> Any:
    """Each unit by its own norms, one after the other."""
    new = np.array(grad)
    count = np.moveaxis(param, axes, 0).shape[0] if param.ndim > 1 else 1
    for k in range(count):
        at: Any = tuple(k if axis == axes % param.ndim else slice(None) for axis in range(param.ndim))
        at = at if param.ndim > 1 else ...
        norm, largest = np.linalg.norm(grad[at]), part * max(np.linalg.norm(param[at]), eps)
        if norm > largest:
            new[at] = grad[at] * (largest / norm)
    return new


@pytest.mark.any_width
@pytest.mark.parametrize(("units", "axis"), [("first", 0), ("last", -1)])
@pytest.mark.parametrize("shape", SHAPES_OF_UNITS, ids=str)
def test_agc_of_units(backend, shape, units, axis):
    rng = np.random.default_rng(11)
    param, grad = (np.asarray(rng.standard_normal(shape), np.float32) for _ in range(2))
    opt = xpopt.SGD(lr=1.0, agc=xpopt.AGC(0.25, eps=1.5, units=units))
    new = backend.numpy(opt.update(backend.array(param), backend.array(grad), "W"))
    want = param - clipped_units(param.astype(float), grad.astype(float), axis, 0.25, 1.5)
    np.testing.assert_allclose(new, want, rtol=1e-5, atol=1e-6)


@pytest.mark.backends("jax")
def test_agc_of_the_last_axis_is_optaxs(backend):
    optax = pytest.importorskip("optax", reason="optax, with which it is compared, is missing")
    rng = np.random.default_rng(12)
    params = {f"{shape}": backend.array(rng.standard_normal(shape).astype(np.float32)) for shape in SHAPES_OF_UNITS[:3]}
    grads = {name: 2 * x[::-1] + 1 for name, x in params.items()}
    peer = optax.adaptive_grad_clip(0.125, eps=0.5)
    theirs, _ = peer.update(grads, peer.init(params), params)
    ours = xpopt.SGD(lr=1.0, agc=xpopt.AGC(0.125, eps=0.5, units="last")).update_all(params, grads)
    for name, x in params.items():
        np.testing.assert_allclose(ours[name], x - theirs[name], rtol=1e-5, atol=1e-6)


@pytest.mark.any_engine
@pytest.mark.backends("numpy")
def test_units_are_text_and_of_real_numbers_and_why_it_is_eager(backend):
    opt = xpopt.Adam(agc=xpopt.AGC(0.02, units="first"))
    assert str(xpopt.make_optimizer(str(opt))) == str(opt)
    (row,) = opt.explain([np.ones((2, 3))])
    assert (row.engine, row.reason) == ("eager", "agc takes the norms of units")
    with pytest.raises(ValueError, match=r"AGC: units are of real parameters, and 'W' is complex128"):
        opt.update(np.ones((2, 2), complex), np.ones((2, 2), complex), "W")
    with pytest.raises(ValueError, match="units='rows' is unknown; wanted one of 'first', 'last'"):
        xpopt.AGC(0.02, units="rows")
    assert xpopt.SGD(agc=0.5)._parts.settings.rule is xpopt.SGD(agc=xpopt.AGC(0.25))._parts.settings.rule
