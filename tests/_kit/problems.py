"""The problems that optimizers walk on, and where an oracle walks."""

import functools
import math
import random
from dataclasses import dataclass

from . import oracles, schedules, table


@dataclass(frozen=True)
class Variable:
    """A parameter of a problem: its shape, its start, its gradients; it joins at step `joins`."""

    shape: tuple[int, ...]
    start: tuple[float, ...]
    gradients: tuple[tuple[float, ...], ...]
    joins: int = 0


def variable(seed, shape, joins=0, steps=schedules.STEPS):
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
    case, schedule = table.BY_LABEL[label], schedules.BY_LABEL[schedule_label]
    paths = {}
    for name, var in PROBLEMS[problem].items():
        rates = schedule.rates[var.joins : var.joins + len(var.gradients)]
        paths[name] = oracles.walk(case.equation, var.start, var.gradients, rates, clip_norm, **case.arguments)
    return paths
