"""Small models: blocks at first, and kernels once the steps have been worth their cost."""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

import numpy as np
import pytest
from _kit.engines import FEW, MAKE, forget_what_was_made, needs_llvmlite, of_rule

import xpopt
from xpopt._engine.compiled import break_even, build
from xpopt._engine.compiled import kernel as compiled
from xpopt._graph.rule import NoSlots

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.any_engine, needs_llvmlite]


@pytest.fixture(autouse=True)
def cheap(monkeypatch, tmp_path):
    """Let kernels be worth a few steps, in a process and on a disk where nothing has been compiled."""
    for name, seconds in (("_IMPORT", 0.0), ("_LOAD", 1.2e-4), ("_COMPILE", 1.2e-4)):
        monkeypatch.setattr(break_even, name, seconds)
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path))
    made = forget_what_was_made(monkeypatch)
    with xpopt.engine("auto"):
        yield made


def model(seed: int, dtype: str = "float32") -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in (("a", (30,)), ("b", (4, 5)), ("c", ()))}


def announced(opt: Any, params: Any) -> int | None:
    """After how many more steps kernels are to be compiled; None where they run already."""
    (found,) = {(row.engine, row.reason) for row in opt.explain(params)}
    if found == ("compiled", ""):
        return None
    assert found[0] == "blocked"
    return int(re.search("after ([0-9]+) more steps, or sooner if the kernel is on disk$", found[1])[1])


def steps_in_blocks(opt: Any, params: Any, most: int = 1000) -> int:
    """Make steps until a kernel runs; return how many were made in blocks."""
    for number in range(most):
        is_next = announced(opt, params) is None
        opt.update_all(params, model(number), out=params)
        if is_next:
            return number
    raise AssertionError(f"none is compiled in {most} steps")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", FEW)
def test_a_model_is_compiled_after_as_many_steps_as_are_announced_and_keeps_its_bits(backend, name, dtype, cheap):
    opt, params = MAKE[name](), model(0, dtype)
    same, others = MAKE[name](), model(0, dtype)
    left, switched = announced(opt, params), None
    assert left > 5
    for number in range(left + 5):
        if switched is None and announced(opt, params) is None:
            switched = number
            opt = copy.copy(opt) if number % 2 else opt.copy()
        opt.update_all(params, model(number, dtype), out=params)
        with xpopt.engine("eager"):
            same.update_all(others, model(number, dtype), out=others)
        for a, b in zip(params.values(), others.values(), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(_slots(opt), _slots(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert abs(switched - left) <= 2  # a model's first look at the disk is a step more, or less
    assert any(isinstance(one, compiled.Kernel) for of in cheap.values() for one in of.values())


def _slots(opt: Any) -> list[Any]:
    entries = [entry if isinstance(entry, dict) else {"slot": entry} for entry in opt.cache.values()]
    return [x for entry in entries for key, x in entry.items() if key != "t"]


def test_updates_of_one_parameter_count_as_well(backend, cheap):
    opt, W = xpopt.Adam(), np.ones(10, np.float32)
    for _ in range(100):
        W = opt.update(W, W, "W")
    assert opt.explain({"W": W})[0].engine == "compiled"
    with xpopt.engine("blocked"):
        before = opt.copy().update(W, W, "W")
    assert opt.update(W, W, "W").tobytes() == before.tobytes()


def test_a_kernel_on_disk_is_loaded_sooner(backend, monkeypatch):
    first = steps_in_blocks(xpopt.Adam(), model(0))
    forget_what_was_made(monkeypatch)  # as in another process
    monkeypatch.setattr(build, "_compiled", None)
    second = steps_in_blocks(xpopt.Adam(), model(0))
    assert 1 < second < first


def test_larger_models_pay_sooner_and_those_that_gain_nothing_never(backend):
    few, many = (announced(xpopt.Adam(), {k: np.ones(size, np.float32) for k in range(3)}) for size in (10, 20_000))
    assert many < few
    nothing = of_rule(lambda xp, p, g, s, h: (p - g, s), NoSlots)()
    row = nothing.explain({"W": np.ones(0, np.float32)})[0]
    assert row[1:2] + row[4:] == ("blocked", "0 elements are fewer than the 65536 that are worth a compilation at once")


def test_functions_that_engines_round_apart_stay_with_their_size(backend):
    opt = of_rule(lambda xp, p, g, s, h: (p - h.lr * xp.exp(g), s), NoSlots)()
    params = model(0)
    for number in range(200):
        opt.update_all(params, model(number), out=params)
    wanted = "51 elements are fewer than the 65536 from which exp, log and powers are compiled"
    assert {(row.engine, row.reason) for row in opt.explain(params)} == {("blocked", wanted)}


def test_steps_by_choice_in_blocks_are_not_counted(backend, cheap):
    opt, params = xpopt.Adam(), model(0)
    before = announced(opt, params)
    with xpopt.engine("blocked"):
        for number in range(2 * before):
            opt.update_all(params, model(number), out=params)
    assert announced(opt, params) == before


def test_without_a_compiler_blocks_go_on(backend, monkeypatch):
    monkeypatch.setattr(build, "why_not_here", lambda: "llvmlite is not installed")
    opt, params = xpopt.Adam(), model(0)
    for number in range(50):
        opt.update_all(params, model(number), out=params)
    assert {(row.engine, row.reason) for row in opt.explain(params)} == {("blocked", "llvmlite is not installed")}


@pytest.mark.uncompiled
@pytest.mark.parametrize("broken", ["its import", "a kernel"])
def test_what_cannot_be_compiled_is_tried_once(backend, monkeypatch, broken):
    tried = []

    def fails(*_: Any) -> Any:
        tried.append(1)
        raise RuntimeError("no memory")

    if broken == "a kernel":
        monkeypatch.setattr(build, "_compiled", fails)
        wanted = "it cannot be compiled: no memory"
    else:
        monkeypatch.setattr(build, "why_no_compiler", lambda: tried.append(1) or "llvmlite's import fails")
        wanted = "llvmlite's import fails"
    opt, params = xpopt.Adam(), model(0)
    for number in range(200):
        opt.update_all(params, model(number), out=params)
    calls = len(tried)
    for number in range(200):
        opt.update_all(params, model(number), out=params)
    assert len(tried) == calls > 0
    assert {(row.engine, row.reason) for row in opt.explain(params)} == {("blocked", wanted)}


def test_threads_and_optimizers_count_together(backend, cheap):
    """Each its own model; whichever comes first compiles, and all run the kernel from then on."""
    opts = [xpopt.Adam() for _ in range(4)]
    ends: list[Any] = [None] * 4

    def train(k: int) -> None:
        with xpopt.engine("auto"):
            params = model(0)
            for number in range(60):
                opts[k].update_all(params, model(number), out=params)
            ends[k] = params

    threads = [threading.Thread(target=train, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(opt.explain(model(0))[0].engine == "compiled" for opt in opts)
    assert len({b"".join(x.tobytes() for x in params.values()) for params in ends}) == 1
