"""Things timed beside each other, on a machine that has other work too.

Blocks of calls alternate (A B, B A, A B, ...), so that whatever the machine does falls on all, and a round of them
gives one ratio. A block begins with calls that are not timed: they bring its own arrays into the cache, and give the
threads of another library, which spin for a while after their work, time to fall asleep. A round during which other
processes used the CPU is run again; after `TRIES` times as many as were wanted, the least disturbed ones count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

TRIES = 1.5
CALLS = 2  # in a block, at least
REST = 0.01  # seconds before a block
NOTICED = 0.05  # of one core, used by others
_TICK = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


@dataclass
class Side:
    """What is timed.

    Parameters
    ----------
    step : callable
        The work.
    feed : callable
        Called with the number of each call before it, and not timed: hands over the gradients.
    around : callable
        Returns the context that a block runs in.
    """

    step: Callable[[], object]
    feed: Callable[[int], object] = lambda number: None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass
class Race:
    """Seconds a call, (rounds, sides), and in how many rounds other processes had part of the machine."""

    seconds: Array
    disturbed: int

    def gain(self, side: int, over: int) -> Array:
        """Return how many times as fast one side was as another, by round."""
        return self.seconds[:, over] / self.seconds[:, side]

    def more(self, side: int, over: int) -> Array:
        """Return how many seconds more a call took one side than another, by round."""
        return self.seconds[:, side] - self.seconds[:, over]


def race(
    sides: Sequence[Side], rounds: int, patience: float = 0.0, block_seconds: float = 0.1, tries: float = TRIES
) -> Race:
    """Time sides in alternating blocks.

    Parameters
    ----------
    sides : sequence of Side
        What is timed.
    rounds : int
        How many, each with one block of every side.
    patience : float
        Seconds to wait, all together, for a moment in which no other process works.
    block_seconds : float
        How long a block lasts at least.
    tries : float
        Rounds that are run at most, for each that is wanted; 1 where a load on the machine is part of what is measured.

    Returns
    -------
    Race
        The least disturbed rounds.
    """
    calls = [_calls(side, block_seconds) for side in sides]
    found: list[tuple[float, list[float]]] = []
    calm = 0
    for attempt in range(round(tries * rounds)):
        patience -= _wait(patience)
        begin, begin_others = time.perf_counter(), _others()
        seconds = [0.0] * len(sides)
        for k in np.roll(range(len(sides)), attempt):
            seconds[k] = block(sides[k], calls[k])
        share = (_others() - begin_others - _TICK) / (time.perf_counter() - begin)
        found.append((max(share, NOTICED), seconds))
        calm += share <= NOTICED
        if calm == rounds:
            break
    found.sort(key=lambda one: one[0])  # and else as they came
    return Race(np.array([seconds for _, seconds in found[:rounds]]), rounds - calm)


@dataclass
class Stopwatch:
    """Runs races of `rounds` rounds, or of a share of them, and counts those that other processes disturbed."""

    rounds: int
    patience: float
    tries: float = TRIES
    run: int = 0
    disturbed: int = 0

    def __call__(self, sides: Sequence[Side], block_seconds: float = 0.1, share: float = 1.0) -> Race:
        rounds = max(round(share * self.rounds), 3)
        result = race(sides, rounds, self.patience, block_seconds, self.tries)
        self.run += rounds
        self.disturbed += result.disturbed
        return result


def _wait(patience: float) -> float:
    """Wait for a calm moment; return how long that took."""
    begin = time.perf_counter()
    while time.perf_counter() - begin < patience:
        before = _others()
        time.sleep(5 * _TICK)
        if _others() - before <= _TICK:
            break
    return time.perf_counter() - begin


def block(side: Side, calls: int) -> float:
    """Return the seconds of a call, over so many of them."""
    time.sleep(REST)
    total = 0.0
    with side.around():
        feed, step, clock = side.feed, side.step, time.perf_counter
        for number in range(-1 - (calls > 20), calls):
            feed(number)
            begin = clock()
            step()
            if number >= 0:
                total += clock() - begin
    return total / calls


def _calls(side: Side, seconds: float) -> int:
    """Return how many calls make a block; warms up."""
    block(side, CALLS)
    return max(CALLS, int(seconds / block(side, CALLS)))


def _others() -> float:
    """Return the CPU seconds that other processes have used so far, on all cores; 0 where Linux does not say."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    own = os.times()
    return (user + nice + system + irq + softirq + steal) * _TICK - own.user - own.system


def spread(values: Array, digits: int, sign: str = "") -> str:
    """Write the median and, in brackets, the quartiles."""
    low, middle, high = (f"{x:{sign},.{digits}f}" for x in np.percentile(values, [25, 50, 75]))
    return f"{middle} [{low}, {high}]"
