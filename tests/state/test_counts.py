"""Counts and steps that fit no 32 bits, and no float64: every engine goes on from them as the equations do."""

from __future__ import annotations

import io
import math
import operator
import sys
from typing import Any

import numpy as np
import pytest
from _kit import oracles, scheduler_oracles
from _kit.bits import cast
from _kit.engines import of_rule
from _kit.rows import rows
from _kit.trajectories import UNIT, read

import xpopt
from xpopt import CheckpointError
from xpopt._engine import pool
from xpopt._graph.rule import NoSlots
from xpopt.schedulers import make_scheduler

HUGE = [2**31 - 2, 2**31, 2**32, 2**53 - 2, 2**53, 2**63 - 2, 2**64 + 1]
DECAYS = [0.0, 5e-324, 1e-200, 0.5, 0.999, 1 - 2**-24, 1 - 1e-9, 1 - 2**-52, math.nextafter(1.0, 0.0)]
LR, EPS = 0.05, 1e-7

START = {"W": [0.25, -1.0, 2.0], "b": [0.5]}
MEAN, VAR = 0.5, 0.25
GRADS = [{"W": [1.0, -0.5, 0.125], "b": [-2.0]}, {"W": [-0.25, 0.5, 3.0], "b": [1.0]}, {"W": [0.5] * 3, "b": [-0.75]}]


def expected(decay: float, counts: dict[str, int]) -> dict[str, list[float]]:
    """Adam from the counts on, in float64."""
    ends = {}
    for name, start in START.items():
        ends[name] = []
        for i, p in enumerate(start):
            memory = (MEAN, VAR) if counts[name] else None
            for k, grads in enumerate(GRADS, start=counts[name] + 1):
                p, memory = oracles.adam(p, grads[name][i], memory, k, LR, decay, decay, EPS)
            ends[name].append(p)
    return ends


def entries(array: Any, counts: dict[str, int]) -> dict[str, Any]:
    return {
        name: {"t": t, "mean": array([MEAN] * len(START[name])), "var": array([VAR] * len(START[name]))}
        for name, t in counts.items()
        if t
    }


def assert_near(got: Any, want: dict[str, list[float]], dtype: str) -> None:
    """Three steps of a dozen roundings each, of the way there: longer, for a state that the corrections enlarge."""
    for name, values in want.items():
        way = np.abs(START[name]) + np.abs(np.subtract(values, START[name])) + 3 * LR
        assert np.all(np.abs(np.asarray(got[name], np.float64) - values) <= 3 * 12 * UNIT[dtype] * way), name


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("t", [0, 1, 40, 10**4, *HUGE])
def test_corrections_of_a_model(fused, backend, t, decay):
    """In one kept plan with a parameter that is far behind; `decay**t` is 0, 1 or anything between."""
    counts = {"W": t, "b": t // 2**20}
    want = expected(decay, counts)
    for dtype in ("float32", "float64"):
        opt = xpopt.Adam(lr=LR, decay1=decay, decay2=decay, eps=EPS)
        opt.set_params(cache_dict=entries(lambda values, dtype=dtype: cast(values, dtype), counts))
        params = {name: cast(values, dtype) for name, values in START.items()}
        for grads in GRADS:
            opt.update_all(params, {name: cast(values, dtype) for name, values in grads.items()}, out=params)
        assert_near(params, want, dtype)
        assert {name: entry["t"] for name, entry in opt.cache.items()} == {name: n + 3 for name, n in counts.items()}


@pytest.mark.parametrize("decay", rows({str(decay): decay for decay in DECAYS}, ["0.0", "0.999", str(DECAYS[-1])]))
@pytest.mark.parametrize("t", rows({str(t): t for t in [0, 10**4, *HUGE]}, ["0", str(2**31), str(2**64 + 1)]))
def test_corrections_on_every_library(backend, t, decay):
    counts = {"W": t, "b": t}
    want = expected(decay, counts)
    dtype = backend.widest
    for whole in (False, True):
        opt = xpopt.Adam(lr=LR, decay1=decay, decay2=decay, eps=EPS)
        opt.cache = entries(backend.array, counts)
        params = {name: backend.array(values) for name, values in START.items()}
        for grads in GRADS:
            grads = {name: backend.array(values) for name, values in grads.items()}
            if whole:
                params = opt.update_all(params, grads)
            else:
                params = {name: opt.update(x, grads[name], name) for name, x in params.items()}
                opt.step()
        assert_near({name: read(backend, x) for name, x in params.items()}, want, dtype)
        assert [entry["t"] for entry in opt.cache.values()] == [t + 3] * 2


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("t", [1, 2**24 + 1, *HUGE])
def test_a_count_that_meets_arrays(fused, backend, dtype, t):
    """A rule of one's own that multiplies by it, rounded once."""

    def rule(xp, param, grad, s, h):
        return param - grad * h.t, s

    opt = of_rule(rule, NoSlots)(lr=1.0)
    opt.cache = {"W": {"t": t}}
    params = {"W": np.zeros(3, dtype)}
    for _ in range(3):
        params = opt.update_all(params, {"W": np.ones(3, dtype)})
    want = -float(3 * t + 6)
    assert np.all(np.abs(params["W"] / want - 1) <= 6 * UNIT[dtype])
    assert opt.cache["W"]["t"] == t + 3


@pytest.mark.parametrize("t", [2**24 + 1, *HUGE])
def test_a_count_that_meets_arrays_of_any_library(backend, eager, t):
    """Whose integers may have 32 bits."""

    def rule(xp, param, grad, s, h):
        return param - grad * h.t, s

    opt = of_rule(rule, NoSlots)(lr=1.0)
    opt.cache = {"W": {"t": t}}
    W = opt.update(backend.array([0.0, 0.0], "float32"), backend.array([1.0, -2.0], "float32"), "W")
    want = np.array([-1.0, 2.0]) * float(t + 1)
    assert np.all(np.abs(read(backend, W) / want - 1) <= 2 * UNIT["float32"])


SCHEDULES = {
    "constant": (scheduler_oracles.constant, "ConstantScheduler", {"lr": 0.05}),
    "slow": (
        scheduler_oracles.exponential,
        "ExponentialScheduler",
        {"initial_lr": 0.1, "stage_length": 2**40, "staircase": False, "decay": 0.5},
    ),
    "staircase": (
        scheduler_oracles.exponential,
        "ExponentialScheduler",
        {"initial_lr": 0.1, "stage_length": 2**31, "staircase": True, "decay": 0.5},
    ),
    "long at its end": (scheduler_oracles.exponential, "ExponentialScheduler", {"initial_lr": 0.1}),
    "noam": (scheduler_oracles.noam, "NoamScheduler", {"model_dim": 16, "scale_factor": 20_000, "warmup_steps": 20}),
    "noam, rising": (
        scheduler_oracles.noam,
        "NoamScheduler",
        {"model_dim": 16, "scale_factor": 2e9, "warmup_steps": 2**60},
    ),
}


@pytest.mark.parametrize("step", HUGE)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_of_a_schedule(backend, schedule, step):
    oracle, name, settings = SCHEDULES[schedule]
    opt = xpopt.SGD(lr_scheduler={"id": name, **settings})
    opt.cur_step = step
    one, params = backend.array([1.0]), {"W": backend.array([0.0])}
    for k in range(3):
        before = float(read(backend, params["W"])[0])
        params = opt.update_all(params, {"W": one})
        moved = before - float(read(backend, params["W"])[0])
        want = oracle(step + k, **settings)
        assert abs(moved - want) <= 1e-11 * want + 8 * UNIT[backend.widest] * (abs(before) + want)
        assert opt.cur_step == step + k + 1


class Index:
    """An int of somebody else's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


INTS = {
    "int": int,
    "int64": np.int64,
    "uint8": np.uint8,
    "an array": np.array,
    "an array of uint64": lambda n: np.array(n, np.uint64),
    "somebody's": Index,
}
NO_INTS = [
    True,
    np.True_,
    np.array(True),
    1.0,
    np.float64(1),
    np.array(1.0),
    np.array([1]),
    np.array([1, 2]),
    "1",
    None,
]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("of", INTS.values(), ids=INTS)
def test_an_int_of_any_kind_is_an_int(backend, of):
    opt = xpopt.Adam(seed=of(7), lr_scheduler={"id": "exponential", "stage_length": of(7)})
    opt.cur_step = of(7)
    opt.set_params(cache_dict={"W": {"t": of(7), "mean": np.zeros(2), "var": np.zeros(2)}})
    opt.cache["b"] = {"t": of(7), "mean": np.zeros(2), "var": np.zeros(2)}
    seven = [opt.cur_step, opt.hyperparameters["seed"], opt.lr_scheduler.stage_length]
    seven += [parameter["updates"] for parameter in opt.state_dict()["header"]["parameters"]]
    opt.update_all({"W": np.ones(2), "b": np.ones(2)}, {"W": np.ones(2), "b": np.ones(2)})
    seven += [opt.cur_step - 1, opt.cache["W"]["t"] - 1, opt.cache["b"]["t"] - 1]
    schedule = make_scheduler({"id": "noam", "warmup_steps": of(7), "model_dim": of(7)})
    seven += [schedule.warmup_steps, schedule.model_dim]
    assert schedule(of(7)) == schedule(7)
    with xpopt.num_threads(of(7)):
        seven.append(pool.threads())
    assert seven == [7] * len(seven)
    assert {type(n) for n in seven} == {int}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", NO_INTS, ids=repr)
def test_what_is_no_int_is_refused(backend, value):
    opt, x = xpopt.Adam(), np.zeros(2)
    with pytest.raises(ValueError, match=r"keeps a dict of 't', an int in \[0, 1.8e308\]"):
        opt.set_params(cache_dict={"W": {"t": value, "mean": x, "var": x}})
    with pytest.raises(TypeError, match="cur_step="):
        opt.cur_step = value
    with pytest.raises(TypeError, match="seed="):
        opt.set_params({"seed": value})
    with pytest.raises(TypeError, match="step="):
        make_scheduler("noam")(value)
    with pytest.raises(TypeError, match="wanted an int of at least 1"), xpopt.num_threads(value):
        pass
    assert (opt.cur_step, opt.cache) == (0, {})


def test_a_count_in_an_array_of_any_library(backend):
    entry = entries(backend.array, {"W": 7})["W"]
    opt = xpopt.Adam()
    opt.set_params(cache_dict={"W": {**entry, "t": backend.xp.asarray(7)}})
    assert opt.state_dict()["header"]["parameters"][0]["updates"] == 7
    opt.update(backend.array(START["W"]), backend.array(START["W"]), "W")
    assert (opt.cache["W"]["t"], type(opt.cache["W"]["t"])) == (8, int)


def test_a_bool_in_an_array_of_any_library_is_no_int(backend):
    opt, entry, value = xpopt.Adam(), entries(backend.array, {"W": 7})["W"], backend.xp.asarray(True)
    with pytest.raises(ValueError, match="keeps a dict of 't', an int"):
        opt.set_params(cache_dict={"W": {**entry, "t": value}})
    with pytest.raises(TypeError, match="cur_step="):
        opt.cur_step = value
    assert (opt.cur_step, opt.cache) == (0, {})


@pytest.mark.backends("numpy")
def test_a_cache_that_savez_wrote(backend):
    opt, W = xpopt.Adam(), np.ones(3)
    for _ in range(3):
        W = opt.update(W, W, "W")
    file = io.BytesIO()
    np.savez(file, **opt.cache["W"])
    file.seek(0)
    other = xpopt.Adam()
    with np.load(file) as loaded:
        other.cache = {"W": dict(loaded)}
    assert other.update(W, W, "W").tobytes() == opt.update(W, W, "W").tobytes()
    assert other.cache["W"]["t"] == opt.cache["W"]["t"] == 4


LARGEST = int(sys.float_info.max)


@pytest.mark.backends("numpy")
def test_the_largest_counts(fused, backend):
    """After so many steps there is nothing to correct: the equations with a denominator of 1."""
    opt, W = xpopt.Adam(lr=LR, lr_scheduler="exponential"), np.array(START["W"])
    opt.set_params(cache_dict=entries(np.array, {"W": LARGEST - 2}))
    opt.cur_step = LARGEST - 2
    for _ in range(2):
        assert opt.update(W, W, "W").tolist() == W.tolist()  # the rate is 0 by then
        opt.step()
    assert (opt.cur_step, opt.cache["W"]["t"]) == (LARGEST, LARGEST)
    again = xpopt.Adam()
    again.load_state_dict(opt.state_dict())
    assert (again.cur_step, again.cache["W"]["t"]) == (LARGEST, LARGEST)
    assert xpopt.Adam(seed=LARGEST).hyperparameters["seed"] == LARGEST


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", [LARGEST + 1, 10**400, 10**5000], ids=["next", "400 digits", "5000 digits"])
def test_what_no_float_can_hold_is_refused_in_one_way(fused, backend, value):
    x = np.ones(2)
    opt, entry = xpopt.Adam(), {"t": value, "mean": x, "var": x}
    opt.update(x, x, "W")
    held = dict(opt.cache["W"])
    works = [
        lambda: setattr(opt, "cur_step", value),
        lambda: opt.set_params({"seed": value}),
        lambda: opt.set_params(cache_dict={"W": entry}),
        lambda: make_scheduler({"id": "exponential", "stage_length": value}),
        lambda: make_scheduler("noam")(value),
        lambda: opt.set_params({"lr": 2 * value}),
    ]
    for work in works:
        with pytest.raises(ValueError, match=r"beyond 1.8e308.*; (wanted|Adam keeps)"):
            work()
    for field in ("cur_step", "skipped"):
        state = opt.state_dict()
        state["header"][field] = value
        with pytest.raises(CheckpointError, match=f"{field} is beyond 1.8e308; wanted an int"):
            opt.load_state_dict(state)
    state["header"]["parameters"][0]["updates"] = value
    assert opt.cur_step == 0
    assert all(map(operator.is_, opt.cache["W"].values(), held.values()))
    opt.cache["W"] = entry
    for update in (lambda: opt.update(x, x, "W"), lambda: opt.update_all({"W": x}, {"W": x}), opt.state_dict):
        with pytest.raises(ValueError, match=r"beyond 1.8e308.*; Adam keeps"):
            update()
    assert opt.cur_step == 0
    assert opt.cache["W"] is entry


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_gradient_that_is_missing_after_steps_by_a_plan(backend, steps):
    """The other parameter is not contiguous: its slots are new, and the plan of both is kept until there is another."""
    opt, b = xpopt.Adam(lr=0.5), np.ones(2)
    for _ in range(steps):
        b = opt.update_all({"W": np.ones((4, 4))[::2, ::2], "b": b}, {"W": np.ones((2, 2)), "b": np.ones(2)})["b"]
    opt.update_all({"W": np.ones((4, 4))[::2, ::2], "b": b}, {"W": np.ones((2, 2)), "b": None})
    assert {name: entry["t"] for name, entry in opt.cache.items()} == {"W": steps + 1, "b": steps}
