"""Methods that read the whole model: beside optax in float64, the same bits on all engines, and down a valley."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
from _kit.bits import normal
from _kit.table import OF_MODEL

import xpopt

pytestmark = pytest.mark.any_engine

SHAPES: dict[str, tuple[int, ...]] = {"W": (7, 5), "b": (), "long": (4097,)}
OURS = {xpopt.DoG: {"initial": 1e-3}, xpopt.Prodigy: {"initial": 1e-3, "weight_decay": 0.125}}
THEIRS = {
    xpopt.DoG: ("dog", {"init_step": ("heuristic", 1e-3)}),
    xpopt.Prodigy: ("prodigy", {"estim_lr0": 1e-3, "weight_decay": 0.125}),
}
every_method = pytest.mark.parametrize("cls", OF_MODEL, ids=lambda cls: cls.__name__)
on_numpy = pytest.mark.backends("numpy")


def walk(opt: Any, dtype: Any, steps: int, convert: Any = np.asarray, values: Any = np.asarray) -> list[dict[str, Any]]:
    """Go towards 0.25 with noise; return the parameters after each step."""
    rng = np.random.default_rng(1)
    params = {name: convert(np.asarray(normal(rng, shape), dtype)) for name, shape in SHAPES.items()}
    path = [params]
    for _ in range(steps):
        noise = {name: 0.5 * normal(rng, shape) for name, shape in SHAPES.items()}
        grads = {name: convert(np.asarray(values(x) - 0.25 + noise[name], dtype)) for name, x in params.items()}
        params = opt.update_all(params, grads)
        path.append(params)
    return path


@pytest.mark.backends("jax-x64")
@every_method
def test_it_is_what_optax_computes(backend, cls):
    optax = pytest.importorskip("optax")
    name, settings = THEIRS[cls]
    transform = getattr(optax.contrib, name)(**settings)
    mine = walk(cls(**OURS[cls]), np.float64, 30)
    params = {name: backend.array(x) for name, x in mine[0].items()}
    state, rng = transform.init(params), np.random.default_rng(1)
    for shape in SHAPES.values():
        normal(rng, shape)  # the start
    walked = 0.0
    for before, after in itertools.pairwise(mine):
        noise = {name: 0.5 * normal(rng, shape) for name, shape in SHAPES.items()}
        grads = {name: backend.array(before[name] - 0.25 + noise[name]) for name in SHAPES}
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        walked += max(float(np.max(np.abs(after[name] - before[name]))) for name in SHAPES)
        off = max(float(np.max(np.abs(after[name] - backend.numpy(params[name])))) for name in SHAPES)
        assert off <= 1e-9 * walked


@pytest.mark.any_width
@every_method
def test_other_libraries_compute_the_same(backend, cls):
    """In float32 beside float64: the rate is a quotient of sums, and each step hangs on those before."""
    got = walk(cls(**OURS[cls]), np.float32, 4, functools.partial(backend.array, dtype="float32"), backend.numpy)[-1]
    want = walk(cls(**OURS[cls]), np.float64, 4)[-1]
    for name in SHAPES:
        np.testing.assert_allclose(backend.numpy(got[name]), want[name], rtol=1e-4, atol=1e-5)


@on_numpy
@every_method
@pytest.mark.usefixtures("fused")
def test_bits_are_eager_numpys(backend, cls):
    got = walk(cls(**OURS[cls]), np.float32, 3)[-1]
    with xpopt.engine("eager"):
        want = walk(cls(**OURS[cls]), np.float32, 3)[-1]
    assert all(got[name].tobytes() == want[name].tobytes() for name in SHAPES)


@on_numpy
@every_method
def test_it_finds_the_bottom_without_a_rate(backend, cls):
    opt, params = cls(), {"x": np.array([3.0, -1.0]), "y": np.array(2.0)}
    for _ in range(600):
        params = opt.update_all(params, {name: 2 * (x - 1) for name, x in params.items()})
    assert all(np.all(np.abs(x - 1) < 0.02) for x in params.values())


@pytest.mark.backends("numpy", "jax")
def test_dog_begins_where_its_first_step_is_made(backend):
    """Also after one that a device has left out, and counted."""
    skipping, plain = xpopt.DoG(initial=0.1, nonfinite="skip"), xpopt.DoG(initial=0.1)
    params = {"W": backend.array([[3.0, 4.0]])}
    bad, good = {"W": backend.array([[np.inf, 1.0]])}, {"W": backend.array([[1.0, 2.0]])}
    got, want = skipping.update_all(params, bad), params
    for _ in range(3):
        got, want = skipping.update_all(got, good), plain.update_all(want, good)
    assert skipping.skipped == 1
    assert not np.allclose(backend.numpy(want["W"]), [[3.0, 4.0]], rtol=0.01)
    assert np.allclose(backend.numpy(got["W"]), backend.numpy(want["W"]), rtol=1e-5)


@every_method
@pytest.mark.any_width
def test_without_a_gradient_nothing_moves(backend, cls):
    x = backend.array(np.array([1.0, -2.0], np.float32))
    opt = cls()
    for _ in range(3):
        x = opt.update_all([x], [backend.array(np.zeros(2, np.float32))])[0]
    assert backend.numpy(x).tolist() == [1.0, -2.0]
    with pytest.raises(TypeError, match="use update_all"):
        cls().update(x, x, "W")


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("make", "part"),
    [(lambda: xpopt.LARS(lr=0.5, trust=0.25), 0.125), (lambda: xpopt.LAMB(lr=0.5), 0.5)],
    ids=["LARS", "LAMB"],
)
@pytest.mark.parametrize(("dtype", "tiny"), [("float32", 2.0**-146), ("float64", 2.0**-1071)])
def test_a_tiny_gradient_moves_a_parameter_by_a_part_of_its_norm(backend, make, part, dtype, tiny):
    """As any other does: four equal elements, so that each moves by that part of itself."""
    new = make().update(np.full(4, 64.0, dtype), np.full(4, tiny, dtype), "W")
    np.testing.assert_allclose(new, 64.0 * (1 - part), rtol=1e-6)
