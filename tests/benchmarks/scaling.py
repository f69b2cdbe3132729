"""Threads of the caller's, each with an optimizer of its own: what two of them achieve beside one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from measuring import Side, Stopwatch, spread
from peers import Compiled
from report import Begin, Section, marked

import xpopt

SIZES = (10**4, 10**6, 10**7)
ENGINES = ("blocked", "compiled")
ELEMENTS = 4 * 10**6  # that a thread updates in one turn, so that waking it is nothing beside that

TITLE = "Optimizers in threads"

TEXT = """\
Steps of Adam by `update_all` in place, one parameter, `num_threads(1)`: in one thread, and in two at once that share
nothing, each with its own optimizer and arrays. The throughput is how many times as many steps two threads make in the
same time as one; 2 is all there is."""


def section(timed: Stopwatch, begin: Begin) -> Section:
    """Measure every size on every engine."""
    found = Section(TITLE, TEXT, ["engine", "elements", "one thread, us", "two threads, us", "throughput"])
    with ThreadPoolExecutor(1) as other:
        for engine in ENGINES:
            for size in SIZES:
                begin(f"{engine}, {size:,}")
                if engine == "compiled" and Compiled.why_not() is not None:
                    continue
                steps = max(ELEMENTS // size, 2)
                here, there = (_training(engine, size, steps) for _ in range(2))
                result = timed([Side(here), Side(partial(_both, here, there, other))], 0.2)
                one, two = 1e6 / steps * result.seconds.T
                cells = [f"{size:,}", spread(one, 0), spread(two, 0), f"{spread(2 * result.gain(1, 0), 2)} x"]
                found.rows.append([marked(engine, result), *cells])
    return found


def _training(engine: str, size: int, steps: int) -> Callable[[], None]:
    """Return a function that makes so many steps of an optimizer of its own."""
    opt, rng = xpopt.Adam(), np.random.default_rng(size)
    params, *grads = ({"W": rng.standard_normal(size, np.float32)} for _ in range(3))

    def train() -> None:
        with xpopt.engine(engine), xpopt.num_threads(1):
            for number in range(steps):
                opt.update_all(params, grads[number % 2], out=params)

    train()
    return train


def _both(here: Callable[[], None], there: Callable[[], None], other: ThreadPoolExecutor) -> None:
    waiting = other.submit(there)
    here()
    waiting.result()
