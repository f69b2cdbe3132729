"""Every schedule, and its rates."""

import random
from dataclasses import dataclass
from typing import Any

import xpopt

from . import scheduler_oracles

STEPS = 50


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
BY_LABEL = {schedule.label: schedule for schedule in SCHEDULES}
