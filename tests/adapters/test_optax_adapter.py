"""Optimizers among optax's transformations."""

import doctest
import sys

import numpy as np
import pytest
from _kit import problems

import xpopt

optax = pytest.importorskip("optax", reason="what is adapted to is optax's")
jax = pytest.importorskip("jax")
pytestmark = pytest.mark.backends("jax-x64")
from xpopt.adapters.optax import transformation  # noqa: E402

COSINE = xpopt.schedulers.cosine(0.0625, 0.0, steps=60)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            xpopt.Adam(lr=COSINE, eps=1e-8, weight_decay=0.125),
            lambda: optax.adamw(optax.cosine_decay_schedule(0.0625, 60), weight_decay=0.125),
        ),
        ("SGD(lr=0.0625, momentum=0.9, lr_inside=False)", lambda: optax.sgd(0.0625, momentum=0.9)),
    ],
)
def test_the_path_of_optax_in_a_chain(backend, ours, theirs):
    var = problems.variable(41, (7, 5))
    walks = []
    for inner in (transformation(ours), theirs()):
        solver = optax.chain(optax.clip_by_global_norm(0.5), inner)
        params = {"w": [backend.array(var.start, "float64")], "idle": backend.array([1.0], "float64")}
        state, update = solver.init(params), jax.jit(solver.update)
        for gradient in var.gradients[:50]:
            grads = {"w": [backend.array(gradient, "float64")], "idle": backend.array([0.0], "float64")}
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
        walks.append(np.asarray(params["w"][0]))
    assert np.max(np.abs(walks[0] - walks[1])) < 1e-12
    assert np.max(np.abs(walks[0] - np.asarray(var.start))) > 0.1


def test_a_state_is_a_value(backend):
    params = [backend.array([1.0, 2.0], "float64")]
    solver = transformation(xpopt.Adam(lr=0.1, average=xpopt.EMA(0.5)))
    state = solver.init(params)
    once, after = solver.update(params, state, params)
    solver.update(params, after, params)
    again, _ = solver.update(params, state, params)
    assert once[0].tolist() == again[0].tolist()
    assert (int(state.count), int(after.count)) == (0, 1)
    other = solver.init([2 * params[0]])  # of the same shape
    assert other.slots["0"]["average"].tolist() == [2.0, 4.0]
    assert state.slots["0"]["average"].tolist() == [1.0, 2.0]


def test_a_scan_and_an_optimizer_that_has_made_steps(backend):
    opt, params = xpopt.Adam(lr=COSINE), {"w": backend.array([1.0, -2.0], "float64")}
    for _ in range(3):
        params = opt.update_all(params, params)
    solver = transformation(opt)

    def body(carry, _):
        params, state = carry
        updates, state = solver.update(params, state, params)
        return (optax.apply_updates(params, updates), state), None

    (walked, state), _ = jax.lax.scan(body, (params, solver.init(params)), length=4)
    for _ in range(4):
        params = opt.update_all(params, params)
    assert int(state.count) == 4
    assert np.max(np.abs(np.asarray(walked["w"]) - np.asarray(params["w"]))) < 1e-12


def test_what_it_does_not_take_is_told(backend):
    solver, params = transformation(), [backend.array([1.0], "float64")]
    state = solver.init(params)
    with pytest.raises(ValueError, match="params is None"):
        solver.update(params, state)
    with pytest.raises(TypeError, match="wanted the state that init of this transformation returned"):
        solver.update(params, optax.sgd(0.1).init(params), params)
    with pytest.raises(ValueError, match="slots"):
        solver.update([params[0], params[0]], state, [params[0], params[0]])
    with pytest.raises(ValueError, match="two parameters have the path 'a/b'; rename one of the keys"):
        solver.init({"a/b": params[0], "a": {"b": params[0]}})
    with pytest.raises(ValueError, match="nonfinite"):
        transformation(xpopt.Adam(nonfinite="raise"))
    with pytest.raises(ValueError, match="nobody"):
        transformation("nobody")


def test_the_example():
    assert doctest.testmod(sys.modules[transformation.__module__]) == (0, 8)
