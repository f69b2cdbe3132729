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


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (xpopt.Adam(lr=0.0625, eps=1e-8, weight_decay=0.125), lambda: optax.adamw(0.0625, weight_decay=0.125)),
        ("SGD(lr=0.0625, momentum=0.9, lr_inside=False)", lambda: optax.sgd(0.0625, momentum=0.9)),
    ],
)
def test_the_path_of_optax_in_a_chain(backend, ours, theirs):
    var = problems.variable(41, (7, 5))
    walks = []
    for inner in (transformation(ours), theirs()):
        solver = optax.chain(optax.clip_by_global_norm(0.5), inner)
        params = {"w": [backend.array(var.start, "float64")], "idle": backend.array([1.0], "float64")}
        state = solver.init(params)
        for gradient in var.gradients[:50]:
            grads = {"w": [backend.array(gradient, "float64")], "idle": backend.array([0.0], "float64")}
            updates, state = solver.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        walks.append(np.asarray(params["w"][0]))
    assert np.max(np.abs(walks[0] - walks[1])) < 1e-12
    assert np.max(np.abs(walks[0] - np.asarray(var.start))) > 0.1


def test_a_state_is_a_value(backend):
    solver, params = transformation("Adam(lr=0.1)"), [backend.array([1.0, 2.0], "float64")]
    state = solver.init(params)
    once, _ = solver.update(params, state, params)
    again, _ = solver.update(params, state, params)
    assert once[0].tolist() == again[0].tolist()
    assert state.optimizer.cur_step == 0


def test_what_it_does_not_take_is_told(backend):
    solver, params = transformation(), [backend.array([1.0], "float64")]
    state = solver.init(params)
    with pytest.raises(ValueError, match="params is None"):
        solver.update(params, state)
    with pytest.raises(TypeError, match="wanted what init of this transformation returned"):
        solver.update(params, optax.sgd(0.1).init(params), params)
    with pytest.raises(TypeError, match=r"outside jax\.jit"):
        jax.jit(lambda x: solver.update(x, state, x)[0])(params)
    with pytest.raises(ValueError, match="nobody"):
        transformation("nobody")


def test_the_example():
    assert doctest.testmod(sys.modules[transformation.__module__]) == (0, 7)
