"""Counts and steps that fit no 32 bits, and no float64: every engine goes on from them as the equations do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
import scheduler_oracles
from engines import cast, of_rule
from trajectories import UNIT, read

import xpopt
from xpopt._rule import NoSlots

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


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("t", [0, 10**4, *HUGE])
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
