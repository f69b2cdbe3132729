"""Polyak's step: beside the formula in Python's numbers and optax, to a bottom whose height is known."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from _kit.bits import normal

import xpopt
from xpopt import PolyakSGD

SHAPES: dict[str, tuple[int, ...]] = {"W": (7, 5), "b": (), "none": (0,)}
on_numpy = pytest.mark.backends("numpy")


def model(seed: int, dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(normal(rng, shape), dtype) for name, shape in SHAPES.items()}


def stepped(params: Any, grads: Any, loss: float, lr: float, lowest: float, most: float) -> dict[str, Any]:
    square = math.fsum(float(g) ** 2 for x in grads.values() for g in x.ravel())
    rate = min(most, max(loss - lowest, 0) / square) if square else 0.0
    return {name: x.astype(float) - lr * rate * grads[name].astype(float) for name, x in params.items()}


@pytest.mark.parametrize(("loss", "lowest"), [(3.0, 0.5), (1000.0, 0.5), (-2.0, 0.5), (-2.0, -4.0)])
def test_it_is_the_formula(backend, loss, lowest):
    """Below the largest rate, at it, below the lowest loss, and with one below 0."""
    params, grads = model(1, np.float32), model(2, np.float32)
    arrays = [{name: backend.array(x) for name, x in of.items()} for of in (params, grads)]
    new = PolyakSGD(lr=0.5, lowest=lowest, most=0.25).update_all(*arrays, cur_loss=loss)
    for name, want in stepped(params, grads, loss, 0.5, lowest, 0.25).items():
        np.testing.assert_allclose(backend.numpy(new[name]), want, rtol=0, atol=1e-6)


@pytest.mark.backends("jax-x64")
@pytest.mark.parametrize("loss", [3.0, 1000.0, -2.0])
def test_it_is_what_optax_computes(backend, loss):
    """At a factor of 1: optax takes the norm of gradients that have been scaled."""
    optax = pytest.importorskip("optax")
    transform = optax.polyak_sgd(max_learning_rate=0.25, f_min=0.5, variant="sps+")
    params, grads = model(1), model(2)
    given = {name: backend.array(x) for name, x in grads.items()}
    updates, _ = transform.update(given, transform.init(given), given, value=loss)
    new = PolyakSGD(lowest=0.5, most=0.25).update_all(params, grads, cur_loss=loss)
    for name, x in params.items():
        np.testing.assert_allclose(new[name] - x, backend.numpy(updates[name]), rtol=1e-9, atol=1e-15)


@on_numpy
def test_it_halves_the_distance_on_a_square(backend):
    """On x * x the step is x / 2, whatever the scale: also where the square of the norm is above any float32."""
    for scale in (1.0, 1e-18, 3e18):
        x = np.asarray([3 * scale, -4 * scale], np.float32)
        grad, loss = 2 * x, float(np.sum(x.astype(float) ** 2))
        (new,) = PolyakSGD(most=10.0).update_all([x], [grad], cur_loss=loss)
        np.testing.assert_allclose(new, x / 2, rtol=1e-6)


@on_numpy
def test_upwards_the_loss_is_the_negative(backend):
    params, grads = model(1), model(2)
    down = PolyakSGD(lowest=-3.0).update_all(params, {name: -g for name, g in grads.items()}, cur_loss=-1.0)
    up = PolyakSGD(lowest=-3.0, maximize=True).update_all(params, grads, cur_loss=1.0)
    assert all(up[name].tobytes() == down[name].tobytes() for name in params)


@on_numpy
@pytest.mark.usefixtures("fused")
def test_bits_are_eager_numpys(backend):
    params, grads = model(1, np.float32), model(2, np.float32)
    new = PolyakSGD(lr=0.5).update_all(params, grads, cur_loss=2.0)
    with xpopt.engine("eager"):
        want = PolyakSGD(lr=0.5).update_all(params, grads, cur_loss=2.0)
    assert all(new[name].tobytes() == want[name].tobytes() for name in params)


@on_numpy
def test_zeros_move_nothing_and_nan_is_not_hidden(backend):
    x = np.ones(2)
    assert PolyakSGD().update_all([x], [0 * x], cur_loss=1.0)[0].tolist() == [1.0, 1.0]
    assert PolyakSGD().update_all([x], [0 * x], cur_loss=0.0)[0].tolist() == [1.0, 1.0]
    assert np.isnan(PolyakSGD().update_all([x], [x], cur_loss=math.nan)[0]).all()


@on_numpy
def test_the_loss_and_the_whole_model_are_needed(backend):
    opt, x = PolyakSGD(), np.ones(2)
    with pytest.raises(ValueError, match="PolyakSGD reads the loss, and cur_loss is None; give it the loss"):
        opt.update_all([x], [x])
    with pytest.raises(TypeError, match="use update_all"):
        opt.update(x, x, "W", cur_loss=1.0)
    assert opt.cur_step == 0
    assert opt.cache == {}


@on_numpy
def test_its_settings_may_be_schedules_and_it_pickles(backend):
    opt = PolyakSGD(lowest=xpopt.schedulers.linear(1.0, 0.5, steps=1))
    params, grads = model(1), model(2)
    want = params
    for twin, lowest in ((opt, 1.0), (pickle.loads(pickle.dumps(opt)), 1.0)):
        got = twin.update_all(params, grads, cur_loss=2.0)
        for name, x in stepped(want, grads, 2.0, 1.0, lowest, 1.0).items():
            np.testing.assert_allclose(got[name], x, rtol=1e-12)
    again = opt.update_all(got, grads, cur_loss=2.0)
    for name, x in stepped(got, grads, 2.0, 1.0, 0.5, 1.0).items():
        np.testing.assert_allclose(again[name], x, rtol=1e-12)
