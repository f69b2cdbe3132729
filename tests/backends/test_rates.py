"""Groups that differ in the learning rate share what does not depend on it."""

from __future__ import annotations

import numpy as np
import pytest

import xpopt
from xpopt._engine.numbers import Numbers
from xpopt._graph.rule import RateRows
from xpopt._graph.trace import trace

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine]


@pytest.mark.parametrize("cls", [xpopt.Adam, xpopt.SGD])
def test_groups_that_differ_in_the_rate_have_the_bits_of_optimizers_apart(backend, fused, cls):
    """Also where the rates change, a count falls behind, or another number becomes a group's own."""
    groups = {"b*": {"lr": 0.2}, "c*": {"lr": 0.3}}
    names = ["a0", "b0", "c0", "a1", "b1", "c1"]
    rng = np.random.default_rng(0)
    params = {name: rng.standard_normal(5).astype(np.float32) for name in names}
    opt = cls(lr=0.1, groups=groups)
    apart = {name: cls(lr={"a": 0.1, "b": 0.2, "c": 0.3}[name[0]]) for name in names}
    alone = dict(params)

    def step(only: str = "abc") -> None:
        nonlocal params, alone
        grads = {name: rng.standard_normal(5).astype(np.float32) if name[0] in only else None for name in names}
        params = opt.update_all(params, grads)
        alone = {
            name: x if grads[name] is None else apart[name].update_all([x], [grads[name]])[0]
            for name, x in alone.items()
        }
        for name in names:
            np.testing.assert_array_equal(params[name], alone[name])

    for _ in range(3):
        step()
    opt.lr_scheduler.set_params({"lr": 0.05})
    for name in ("a0", "a1"):
        apart[name].lr_scheduler.set_params({"lr": 0.05})
    for only in ("abc", "abc", "ab", "abc", "abc"):
        step(only)
    before, opt = opt, opt.copy()
    before.set_params({"groups": {"b*": {"lr": 5.0}, "c*": {"lr": 6.0}}})
    step()
    groups = {**groups, "c*": {"lr": 0.4}}
    opt.set_params({"groups": groups})
    for name in ("c0", "c1"):
        apart[name].set_params({"lr": 0.4})
    step()
    step()
    opt.set_params({"groups": {**groups, "b*": {"lr": 0.2, "l2": 0.5}}})
    for name in ("b0", "b1"):
        apart[name].set_params({"l2": 0.5})
    for _ in range(3):
        step()


def test_a_rate_that_moves_beside_one_that_stands(backend, fused):
    """A group with a schedule, one without, and a schedule that comes and goes."""
    halving = "exponential(initial_lr=0.5, decay=0.5, stage_length=1)"
    opt = xpopt.SGD(lr=0.125, groups={"b": {"lr_scheduler": halving}, "c": {"lr": 0.25}})
    names, zero, one = "abc", np.zeros(1), np.ones(1)
    found = []
    for step in range(6):
        if step == 3:
            opt.set_params({"groups": {"b": {"lr": 2.0}, "c": {"lr": 0.25}}})
        if step == 5:
            opt.set_params({"lr": 4.0})
        new = opt.update_all(dict.fromkeys(names, zero), dict.fromkeys(names, one))
        found.append([-float(new[name][0]) for name in names])
    assert found == [
        [0.125, 0.5, 0.25],
        [0.125, 0.25, 0.25],
        [0.125, 0.125, 0.25],
        [0.125, 2.0, 0.25],
        [0.125, 2.0, 0.25],
        [4.0, 2.0, 0.25],
    ]


@pytest.mark.parametrize("cls", [xpopt.Adam, xpopt.SGD])
def test_rows_for_rates_are_the_numbers_of_each_rate(cls):
    """For one row and several, and a rate beyond float32."""
    settings = cls()._parts.settings
    graph = trace(settings.rule, settings.numbers_at(3))
    for rates in ([0.5], [0.1, 0.2, 1e300]):
        each = [settings.numbers_at(3, rate) for rate in rates]
        numbers = Numbers(graph)
        assert numbers.rows(RateRows(each[0], rates), (), None, "f") == numbers.rows(each, (), None, "f")
        assert [vars(h) for h in RateRows(each[0], rates)] == [vars(h) for h in each]
