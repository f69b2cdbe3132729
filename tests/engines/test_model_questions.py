"""Questions about a whole model: told apart by who asks, and put to all before anybody has an answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _kit.bits import same_bits
from _kit.engines import of_rule

import xpopt
from xpopt._graph.rule import NoSlots, Rule

on_numpy = pytest.mark.backends("numpy")
ENGINES = ["eager", "blocked"]

VALUES = {"a": [3.0, 4.0], "b": [1.0, 2.0]}
GRADS = {"a": [1.0, 0.5], "b": [0.0, 2.0]}


def walk(backend: Any, opt: Any, steps: int = 2) -> dict[str, Any]:
    params, grads = ({name: backend.array(np.array(x, np.float32)) for name, x in of.items()} for of in (VALUES, GRADS))
    for _ in range(steps):
        params = opt.update_all(params, grads)
    return {name: backend.numpy(x) for name, x in params.items()}


@pytest.mark.any_width
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [xpopt.DoG, xpopt.Prodigy])
def test_a_bound_of_one_group_that_is_not_reached_changes_nothing(backend, engine, kind):
    """The norm that clips is no norm of the rule, in whichever group it is."""
    with xpopt.engine(engine):
        wanted = walk(backend, kind())
        for name in VALUES:
            found = walk(backend, kind(groups={name: {"clip_global": 1e9}}))
            for one in VALUES:
                np.testing.assert_allclose(found[one], wanted[one], rtol=1e-6)


@pytest.mark.any_width
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("clipped", list(VALUES))
def test_any_group_may_clip_by_the_norm_of_its_own(backend, engine, clipped):
    """The others go their way: in float64 by hand."""
    opt = xpopt.SGD(lr=1.0, groups={clipped: {"clip_global": 0.5}})
    with xpopt.engine(engine):
        found = walk(backend, opt, 1)
    for name in VALUES:
        param, grad = np.array(VALUES[name]), np.array(GRADS[name])
        factor = min(1.0, 0.5 / np.linalg.norm(grad)) if name == clipped else 1.0
        np.testing.assert_allclose(found[name], param - factor * grad, rtol=1e-6)


@on_numpy
@pytest.mark.parametrize("engine", ENGINES)
def test_a_rule_that_asks_may_come_after_one_that_does_not(backend, engine):
    def unit(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - grad / h.model.norm(grad), s

    def plain(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - grad, s

    vectors, others = Rule(plain, where=lambda dtype, shape: len(shape) == 1), Rule(unit)

    class Two(of_rule(unit, NoSlots)):
        @classmethod
        def choose_rule(cls, settings: Any) -> Any:
            return vectors, others

    with xpopt.engine(engine):
        new = Two().update_all([np.zeros(1), np.zeros((1, 2))], [np.ones(1), np.array([[3.0, 4.0]])])
    assert [x.reshape(-1).tolist() for x in new] == [[-1.0], [-0.6, -0.8]]


def deep(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Ask first for what needs a norm, and then for what needs none."""
    late = h.model.norm(grad / xp.linalg.vector_norm(grad))
    return param - grad / (late + h.model.norm(param)), s


def nested(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    late = h.model.norm(param * h.model.norm(param))
    return param - grad / (late + h.model.norm(grad)), s


def idle(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Ask for what nothing comes of."""
    h.model.sum(param)
    return param - grad / h.model.norm(grad), s


ORDERS = {
    "a later norm that is deeper": of_rule(deep, NoSlots),
    "a norm in a norm": of_rule(nested, NoSlots),
    "an answer that is not used": of_rule(idle, NoSlots),
    "agc": lambda: xpopt.DoG(agc=0.1),
    "agc of one group": lambda: xpopt.DoG(groups={"a": {"agc": 0.1}}),
    "agc and a global norm of one group": lambda: xpopt.DoG(agc=0.1, groups={"b": {"clip_global": 0.5}}),
}


@on_numpy
@pytest.mark.parametrize("make", ORDERS.values(), ids=ORDERS)
def test_fused_and_eager_groups_ask_alike(backend, make):
    """A model of which a part is strided, and so runs eagerly, has the bits of the eager engine."""
    found = []
    for engine in ENGINES:
        params = {"a": np.array([3.0, 4.0, 1.0]), "b": np.ones((4, 2))[:, 0]}
        opt = make()
        with xpopt.engine(engine):
            for _ in range(2):
                grads = {"a": params["a"] * 0.5 + 1, "b": np.stack([params["b"] * 0.5 + 1] * 2, axis=1)[:, 0]}
                params = opt.update_all(params, grads)
                params["b"] = np.stack([params["b"]] * 2, axis=1)[:, 0]
        found.append(params)
    assert all(same_bits(found[0][name], found[1][name]) for name in found[0])


@on_numpy
@pytest.mark.filterwarnings("ignore:.*cannot be traced")
def test_a_rule_without_a_graph_is_asked_once_for_each_question(backend):
    """And what a transform asks of a part of the model is not mixed up with it."""

    def untraced(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        size = h.model.norm(grad[...])
        return param - grad / (size + h.model.norm(param)), s

    grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    params = {"a": np.array([0.0]), "b": np.array([2.0])}
    for group in "ab":
        new = of_rule(untraced, NoSlots)(groups={group: {"clip_global": 100.0}}).update_all(params, grads)
        np.testing.assert_allclose([new["a"][0], new["b"][0]], [-3 / 7, 2 - 4 / 7], rtol=1e-15)
