"""The table: every optimizer, its equation, its tolerance; every schedule, its rates; the problems they walk on."""

import functools
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import oracles
import scheduler_oracles

import xpopt

STEPS = 50


@dataclass(frozen=True)
class Case:
    """One row.

    `arguments` are the optimizer's and the equation's. `slots` are the names in the cache, in the order of the
    equation's memory. `roundings` bounds the error of one step in float32, in roundings (2**-24) of its size: the
    reason is beside each row. In float64 every row has the same bound, see `trajectories.bound`.
    """

    label: str
    optimizer: type
    arguments: Mapping[str, float]
    equation: Callable[..., Any]
    slots: tuple[str, ...]
    roundings: float

    def __str__(self):
        return self.label


# A rounding in a running mean lives on for 1 / (1 - decay) steps, or as many as were taken.
CASES = [
    # the rate, and its product
    Case("SGD", xpopt.SGD, {}, oracles.sgd, (), 2),
    # two products and a sum, for 10 steps; the sum may cancel to less than its terms
    Case("SGD-momentum", xpopt.SGD, {"momentum": 0.9}, oracles.sgd_momentum, ("velocity",), 60),
    # a square and a sum of positive numbers for each of 50 steps, halved by the root; rate, root, eps, sum, quotient
    Case("AdaGrad", xpopt.AdaGrad, {"eps": 1e-7}, oracles.adagrad, ("total",), 55),
    # two products, a square and a sum of positive numbers, for 10 steps, halved by the root; and as above
    Case("RMSProp", xpopt.RMSProp, {"decay": 0.9, "eps": 1e-7}, oracles.rmsprop, ("var",), 25),
    # the mean as SGD's momentum; the variance as RMSProp's for 50 steps; two corrections, each a number and a product
    Case("Adam", xpopt.Adam, {"decay1": 0.9, "decay2": 0.999, "eps": 1e-7}, oracles.adam, ("mean", "var"), 160),
    # the same with an eps that counts
    Case("Adam-eps", xpopt.Adam, {"decay1": 0.5, "decay2": 0.9, "eps": 0.1}, oracles.adam, ("mean", "var"), 60),
]
BY_LABEL = {case.label: case for case in CASES}


@dataclass(frozen=True)
class Schedule:
    """What `lr_scheduler` is given, and the oracle's rates for `STEPS` steps from an optimizer with `lr`."""

    label: str
    given: Any
    lr: float
    rates: tuple[float, ...]

    def __str__(self):
        return self.label


# A loss that falls, then rises with noise: King leaves the rate alone, then cuts it.
_noise = random.Random(11)
LOSSES = [
    3 - 0.1 * k + 0.01 * _noise.random() if k < 20 else 1 + 0.02 * k + 0.1 * _noise.random() for k in range(STEPS)
]

SCHEDULES = [
    Schedule("none", None, 0.1, (0.1,) * STEPS),
    Schedule("constant", xpopt.ConstantScheduler(lr=0.07), 0.1, (0.07,) * STEPS),
    Schedule(
        "exponential",
        "ExponentialScheduler(stage_length=20, decay=0.3)",
        0.1,
        tuple(scheduler_oracles.exponential(k, 0.1, 20, False, 0.3) for k in range(STEPS)),
    ),
    Schedule(
        "staircase",
        {"id": "ExponentialScheduler", "initial_lr": 0.2, "stage_length": 7, "staircase": True, "decay": 0.5},
        0.1,
        tuple(scheduler_oracles.exponential(k, 0.2, 7, True, 0.5) for k in range(STEPS)),
    ),
    Schedule(
        "noam",
        xpopt.NoamScheduler(model_dim=16, scale_factor=2, warmup_steps=20),
        0.1,
        tuple(scheduler_oracles.noam(k, 16, 2, 20) for k in range(STEPS)),
    ),
    Schedule(
        "king",
        "KingScheduler(patience=6, decay=0.8)",
        0.1,
        tuple(scheduler_oracles.king(LOSSES, 0.1, 6, 0.8)),
    ),
]
BY_SCHEDULE = {schedule.label: schedule for schedule in SCHEDULES}


@dataclass(frozen=True)
class Variable:
    """A parameter of a problem: its shape, its start, its gradients; it joins at step `joins`."""

    shape: tuple[int, ...]
    start: tuple[float, ...]
    gradients: tuple[tuple[float, ...], ...]
    joins: int = 0


def variable(seed, shape, joins=0, steps=STEPS):
    """Numbers that float32 holds exactly, so that one oracle serves float32 and float64."""
    rng = random.Random(seed)
    size = math.prod(shape)

    def draw(scale):
        return tuple(oracles.to_float32(rng.gauss(0, scale)) for _ in range(size))

    return Variable(shape, draw(0.3), tuple(draw(1.0) for _ in range(steps - joins)), joins)


PROBLEMS = {
    # The second joins late: its count is its own, the step of the schedule is not.
    "two": {"W": variable(1, (7, 5)), ("late", 0): variable(2, (), joins=40)},
    "five": {"W": variable(8, (7, 5), steps=5), ("late", 0): variable(9, (), joins=2, steps=5)},
    "shapes": {
        "scalar": variable(3, (), steps=8),
        "empty": variable(4, (1, 0, 2), steps=8),
        "one": variable(5, (1,), steps=8),
        "matrix": variable(6, (7, 5), steps=8),
        "odd": variable(7, (131,), steps=8),
        "deep": variable(8, (2, 1, 3, 1, 2), steps=8),
    },
}


@functools.cache
def expected(label, schedule_label, clip_norm, problem):
    """The oracle's path of each variable of a problem, computed once for all backends and dtypes."""
    case, schedule = BY_LABEL[label], BY_SCHEDULE[schedule_label]
    paths = {}
    for name, var in PROBLEMS[problem].items():
        rates = schedule.rates[var.joins : var.joins + len(var.gradients)]
        paths[name] = oracles.walk(case.equation, var.start, var.gradients, rates, clip_norm, **case.arguments)
    return paths
