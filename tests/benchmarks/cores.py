"""Models of 100,000 to 500,000 elements: with one thread, and while another process keeps a core busy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from measuring import Array, Side, Stopwatch, spread
from peers import Blocked, Compiled, Foreach, Fused, Peer, Textbook, Traffic
from report import Begin, Section, marked
from works import WORKS, Model

import xpopt

SMALL = [work for work in WORKS if work.name in ("1 x 100k", "1 x 300k", "10 x 50k")]
ALONE: tuple[type[Peer], ...] = (Fused, Foreach, Textbook, Blocked, Traffic)
LOADED: tuple[type[Peer], ...] = (Fused, Foreach, Textbook)

ONE_TITLE, LOADED_TITLE = "One thread", "A loaded machine"

ONE = """\
One step of Adam, in place, with one thread for xpopt and one for torch. The columns are those of whole models."""

SHARED = """\
One step of Adam, in place, on a small model, with {threads} threads on {cores} cores, without and with another process
that computes all the time and takes up to one core. "Longer by" is how many times as long a step takes beside that
process; the last column compares steps that both run beside it. Where a library divides a step among its threads and
waits for all of them, the thread that shares its core with the process delays the whole step."""


def count() -> tuple[int, int]:
    """Return how many races the two sections run."""
    return len(SMALL) * len(ALONE), len(SMALL) * len(LOADED)


def one_thread(timed: Stopwatch, begin: Begin) -> Section:
    """Measure the compiled engine beside other libraries, each with one thread."""
    found = Section(ONE_TITLE, ONE, ["model", "by", "us a step", "compiled is faster by"])

    def race(model: Model, kind: type[Peer]) -> Race:
        with xpopt.num_threads(1):
            result = timed([Compiled(model, 1).side(), kind(model, 1).side()])
        return Race(marked(kind.name, result), result.seconds[:, :1], result.seconds[:, 1:], result.gain(0, 1))

    _add_rows(found, ALONE, begin, "one thread", race, lambda seconds: [spread(1e6 * seconds, 1)])
    return found


def loaded(threads: int, timed: Stopwatch, begin: Begin) -> Section:
    """Measure the compiled engine and others without and with a process that keeps a core busy."""
    text = SHARED.format(threads=threads, cores=os.cpu_count())
    found = Section(LOADED_TITLE, text)
    found.headings = ["model", "by", "us a step", "beside the process, us", "longer by", "compiled is faster by"]
    with _busy() as load:

        def race(model: Model, kind: type[Peer]) -> Race:
            quiet = [Compiled(model, threads).side(), kind(model, threads).side()]
            busy = [Side(side.step, side.feed, partial(load, side)) for side in quiet]
            result = timed([*quiet, *busy])
            return Race(kind.name, result.seconds[:, ::2], result.seconds[:, 1::2], result.gain(2, 3))

        _add_rows(found, LOADED, begin, "loaded", race, _slowed)
    return found


class Race(NamedTuple):
    """What was measured of a peer beside the compiled engine."""

    name: str
    ours: Array  # seconds, a row for each round
    theirs: Array
    gain: Array  # how much faster the compiled engine is


def _add_rows(
    found: Section,
    kinds: tuple[type[Peer], ...],
    begin: Begin,
    what: str,
    race: Callable[[Model, type[Peer]], Race],
    written: Callable[[Array], list[str]],
) -> None:
    """Add a row of each model for the compiled engine, of all its races, and one for each peer."""
    for work in SMALL:
        model = Model(work.shapes)
        rows, ours = [], []
        for kind in kinds:
            begin(f"{work.name}, {what}, {kind.name}")
            if (reason := Compiled.why_not() or kind.why_not()) is not None:
                rows.append([work.name, kind.name, reason, *[""] * (len(found.headings) - 3)])
                continue
            result = race(model, kind)
            ours.append(result.ours)
            rows.append([work.name, result.name, *written(result.theirs), spread(result.gain, 2)])
        if ours:
            found.rows.append([work.name, Compiled.name, *written(np.concatenate(ours)), ""])
        found.rows += rows


def _slowed(seconds: Array) -> list[str]:
    """Write microseconds without and with the process, and how many times as long the latter are."""
    quiet, busy = seconds.T
    return [spread(1e6 * quiet, 1), spread(1e6 * busy, 1), spread(busy / quiet, 2)]


@contextmanager
def _busy() -> Iterator[Callable[[Side], AbstractContextManager[Any]]]:
    """Start a process that computes while a block of a side runs, and rests otherwise."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    process.send_signal(signal.SIGSTOP)

    @contextmanager
    def load(side: Side) -> Iterator[None]:
        process.send_signal(signal.SIGCONT)
        try:
            with side.around():
                yield
        finally:
            process.send_signal(signal.SIGSTOP)

    try:
        yield load
    finally:
        process.kill()
        process.wait()
