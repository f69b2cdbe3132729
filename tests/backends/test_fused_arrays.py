"""The fused engines write where they should and nowhere else, and fail before they write."""

from __future__ import annotations

import contextvars
import re
import threading
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
from _kit.bits import SPECIALS, same_bits
from _kit.engines import Two, of_rule

import xpopt
from xpopt._graph.rule import NoSlots

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.usefixtures("fused")]


def test_the_callers_arrays_in_the_cache_are_not_written(backend):
    opt = xpopt.AdaGrad()
    mine = np.ones(3)
    opt.cache["W"] = mine
    opt.update(np.ones(3), np.ones(3), "W")
    assert mine.tolist() == [1.0, 1.0, 1.0]
    assert opt.cache["W"].tolist() == [2.0, 2.0, 2.0]


def test_the_arrays_of_a_copy_are_not_written(backend):
    opt = xpopt.AdaGrad()
    W = np.ones(3)
    opt.update(W, W, "W")
    twin = opt.copy()
    opt.update(W, W, "W")
    assert twin.cache["W"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("whole", [False, True])
def test_results_that_go_where_others_are_read_are_right(backend, whole):
    """`out` shifted against the parameter, over the gradient, or over another name's parameter."""
    want = xpopt.SGD(lr=1.0, momentum=0.5)
    opt = want.copy()
    memory = np.arange(9.0)
    p, g, out = memory[:8], np.linspace(1, 2, 8), memory[1:]
    expected = want.update(p.copy(), g, "W")
    if whole:
        opt.update_all({"W": p}, {"W": g}, out={"W": out})
    else:
        opt.update(p, g, "W", out=out)
    assert out.tolist() == expected.tolist()
    a, b = np.ones(4), np.full(4, 2.0)
    opt.update_all({"a": a, "b": b}, {"a": np.ones(4), "b": np.ones(4)}, out={"a": b, "b": a})
    assert b.tolist() == [0.0] * 4
    assert a.tolist() == [1.0] * 4


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:], lambda x: x.reshape(2, 2).T.reshape(-1)])
def test_a_slot_may_be_a_gradient_or_parameter(backend, whole, view, fused):
    """It would be written in place while it is still read."""
    results = []
    for engine in ("eager", fused):
        opt = xpopt.SGD(lr=0.5, momentum=0.5)
        W = np.arange(4.0)
        with xpopt.engine(engine):
            for _ in range(2):
                opt.update(W, W, "W")
            slot = view(opt.cache["W"])
            if whole:
                new = list(opt.update_all({"W": slot, "b": W}, {"W": slot, "b": slot}).values())
            else:
                new = [opt.update(slot, slot, "W")]
        results.append([x.tolist() for x in (*new, opt.cache["W"])])
    assert results[0] == results[1]


def test_slots_that_a_caller_spoils_are_refused_or_replaced(backend):
    opt = xpopt.AdaGrad(lr=0.5)
    W = np.ones(4)
    for _ in range(2):
        opt.update(W, W, "W")
    opt.cache["W"].flags.writeable = False
    opt.update(W, W, "W")
    assert opt.cache["W"].tolist() == [3.0] * 4
    opt.cache["W"].resize((1,), refcheck=False)
    with pytest.raises(ValueError, match=r"'total' as numpy float64 of shape \(1,\)"):
        opt.update(W, W, "W")


@pytest.mark.parametrize("whole", [False, True])
def test_a_number_that_fails_comes_before_anything_is_written(backend, whole):
    class Own(xpopt.OptimizerBase):
        slots = Two

        def __init__(self, lr: float = 0.1) -> None:
            super().__init__(lr)

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr / (h.t - 2) * grad, Two(s.fast + 1, s.slow - 1)

    opt = Own()
    W, g = np.ones(3), np.ones(3)
    opt.update_all({"W": W}, {"W": g}, out={"W": W})
    before = W.copy(), opt.cache["W"]["fast"].copy()
    with pytest.raises(ZeroDivisionError):
        opt.update_all({"W": W}, {"W": g}, out={"W": W}) if whole else opt.update(W, g, "W", out=W)
    assert (before[0] == W).all()
    assert (opt.cache["W"]["fast"] == before[1]).all()
    assert (opt.cache["W"]["t"], opt.cur_step) == (1, 1)


def test_a_number_that_is_not_real_comes_before_anything_is_written(backend):
    def rule(xp, param, grad, s, h):
        return param - (h.lr - 1) ** 0.5 * grad, s

    opt, W = of_rule(rule, NoSlots)(), np.ones(2)
    with pytest.raises(TypeError, match="complex"):
        opt.update(W, W, "W", out=W)
    assert (W.tolist(), opt.cache) == ([1.0, 1.0], {})


def test_what_cannot_be_traced_warns_once_and_runs(backend):
    def rule(xp, param, grad, s, h):
        return (param - grad, s) if h.t < 3 else (param, s)

    opt = of_rule(rule, NoSlots)()
    W = np.ones(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            W = opt.update(W, np.ones(2), "W")
    assert re.search(r"rule cannot be traced \(line .*runs eagerly", str(caught[0].message))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert W.tolist() == [-1.0, -1.0]


def test_threads_work_in_arrays_of_their_own(backend):
    rng = np.random.default_rng(5)
    jobs = [(rng.standard_normal(size), rng.standard_normal(size)) for size in (100_003, 600_011) * 2]
    want = [xpopt.Adam().update(p, g, "W") for p, g in jobs]
    got: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(3):
            got[i] = xpopt.Adam().update(*jobs[i], "W")

    threads = [threading.Thread(target=contextvars.copy_context().run, args=(work, i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(a, b) for a, b in zip(want, got, strict=True))


def test_no_warning_of_numpy_escapes(backend):
    x = np.tile(SPECIALS, 5)
    opt = xpopt.Adam()
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for _ in range(2):
            new = opt.update(x, x[::-1].copy(), "W")
    assert np.isnan(new).any()


def test_a_deleted_entry_is_let_go(backend):
    opt = xpopt.AdaGrad()
    params = {"a": np.ones(3), "b": np.ones(3)}
    opt.update_all(params, params)
    slot = weakref.ref(opt.cache["a"])
    del opt.cache["a"]
    opt.update_all({"b": params["b"]}, {"b": params["b"]})
    assert slot() is None
