"""A rule that is not the same each time it is read has no kernel: one warning says so, and the rule itself runs."""

from __future__ import annotations

import itertools
import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from _kit.engines import of_rule

import xpopt
from xpopt._graph.rule import NoSlots

pytestmark = pytest.mark.backends("numpy")

STEP = 1.0


def random_step(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    return param - np.random.normal() * grad, s  # noqa: NPY002 - what is written in such rules


def counting_step(xp: Any, param: Any, grad: Any, s: Any, h: Any, calls: Any = itertools.count(1)) -> Any:  # noqa: B008
    return param - next(calls) * grad, s


def sign_turns(xp: Any, param: Any, grad: Any, s: Any, h: Any, calls: Any = itertools.count()) -> Any:  # noqa: B008
    return (param - grad if next(calls) % 2 else param + grad), s


def other_zero(xp: Any, param: Any, grad: Any, s: Any, h: Any, zeros: Any = itertools.cycle([0.0, -0.0])) -> Any:  # noqa: B008
    return param - xp.maximum(grad, next(zeros)), s


def steps(opt: Any, name: str = "W", count: int = 5) -> list[float]:
    """Return how far a gradient of 1 moves a parameter of 0, several times."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [float(opt.update(np.zeros(1), np.ones(1), name)[0]) for _ in range(count)]


@pytest.mark.parametrize("whole", [False, True], ids=["update", "update_all"])
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 5.0}, {"nonfinite": "skip"}], ids=str)
@pytest.mark.parametrize("rule", [random_step, counting_step, sign_turns, other_zero])
def test_one_warning_and_the_rule_itself(fused, backend, rule, whole, settings):
    opt = of_rule(rule, NoSlots)(**settings)
    W = np.zeros(3)

    def train() -> None:
        for _ in range(5):
            opt.update_all({"W": W}, {"W": W}) if whole else opt.update(W, W, "W")

    with pytest.warns(UserWarning, match=rf"{rule.__name__} cannot be traced: .*scalars\(h\)") as caught:
        train()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    (row,) = opt.explain({"W": W})
    assert row.engine == "eager"
    assert "cannot be traced" in row.reason
    with pytest.raises(TypeError, match="cannot be traced"):
        xpopt.kernel_source(opt)


def test_each_update_draws_anew(fused, backend):
    opt = of_rule(random_step, NoSlots)()
    assert len(set(steps(opt, count=20))) == 20
    assert np.std(steps(opt, count=200)) > 0.5


def test_what_scalars_draws_is_new_at_each_update(fused, backend):
    """The way out that the warning names: it stays on the engine."""

    class Drawn(of_rule(lambda xp, param, grad, s, h: (param - h.noise * grad, s), NoSlots)):
        scalars = staticmethod(lambda h: {"noise": np.random.normal()})  # noqa: NPY002

    opt = Drawn()
    assert len({float(opt.update(np.zeros(1), np.ones(1), "W")[0]) for _ in range(20)}) == 20
    assert opt.explain({"W": np.zeros(1)})[0].engine == fused


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 5.0}], ids=str)
def test_a_variable_that_has_changed_is_seen_by_a_new_optimizer(fused, backend, monkeypatch, settings):
    cls = of_rule(lambda xp, param, grad, s, h: (param - STEP * grad, s), NoSlots)
    old, W = cls(**settings), {"W": np.zeros(1)}
    for _ in range(3):  # so that a plan is kept
        assert old.update_all(W, {"W": np.ones(1)})["W"] == [-1.0]
    cls(**settings)  # which nothing has changed for
    assert old.explain(W)[0].engine == fused
    monkeypatch.setitem(globals(), "STEP", 2.0)
    new = cls(**settings)
    with pytest.warns(UserWarning, match=r"computed with 1.0, and .* again, with 2.0\.") as caught:
        got = new.update_all(W, {"W": np.ones(1)})
    assert len(caught) == 1
    assert got["W"] == [-2.0]
    assert old.update_all(W, {"W": np.ones(1)})["W"] == [-2.0]  # the rule is one
    monkeypatch.setitem(globals(), "STEP", 3.0)
    for opt in (old, new, cls(**settings)):
        assert opt.update_all(W, {"W": np.ones(1)})["W"] == [-3.0]
        assert opt.update(W["W"], np.ones(1), "W") == [-3.0]
        assert opt.explain(W)[0].engine == "eager"


@pytest.mark.parametrize("broken", ["a branch", "an error"])
def test_a_rule_that_can_no_longer_be_traced_is_seen_too(fused, backend, monkeypatch, broken):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        if STEP == 2 and broken == "an error":
            raise ZeroDivisionError("mine")
        return (param - grad if STEP == 1 or h.t > 0 else param), s

    cls = of_rule(rule, NoSlots)
    assert steps(cls()) == [-1.0] * 5
    monkeypatch.setitem(globals(), "STEP", 2.0)
    opt = cls()

    def update() -> None:
        with pytest.raises(ZeroDivisionError, match="mine") if broken == "an error" else nullcontext():
            opt.update(np.zeros(1), np.ones(1), "W")

    with pytest.warns(UserWarning, match=r"cannot be traced .*(value of greater\(t, 0\)|mine)"):
        update()


def test_with_master_copies_too(fused, backend, monkeypatch):
    cls = of_rule(lambda xp, param, grad, s, h: (param - STEP * grad, s), NoSlots)
    old, W = cls(master=True), {"W": np.zeros(1, np.float16)}
    for _ in range(3):
        assert old.update_all(W, {"W": np.ones(1, np.float16)})["W"] == [-1.0]
    monkeypatch.setitem(globals(), "STEP", 2.0)
    new = cls(master=True)
    with pytest.warns(UserWarning, match=r"with 1.0, and .* with 2.0\."):
        results = [opt.update_all(W, {"W": np.ones(1, np.float16)})["W"] for opt in (new, old)]
    assert results == [[-2.0]] * 2


def test_what_is_no_constant_of_the_result_may_differ(fused, backend):
    """A number that goes nowhere, or a `print`, is no reason."""

    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        np.random.normal() * grad  # noqa: NPY002
        return param - grad, s

    opt = of_rule(rule, NoSlots)()
    assert opt.update(np.zeros(1), np.ones(1), "W") == [-1.0]
    assert opt.explain({"W": np.zeros(1)})[0].engine == fused
