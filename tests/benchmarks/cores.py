"""Models of 100,000 to 500,000 elements: with one thread, and while another process keeps a core busy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

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
    for work in SMALL:
        model = Model(work.shapes)
        rows, ours = [], []
        for kind in ALONE:
            begin(f"{work.name}, one thread, {kind.name}")
            if (reason := Compiled.why_not() or kind.why_not()) is not None:
                rows.append([work.name, kind.name, reason, ""])
                continue
            with xpopt.num_threads(1):
                result = timed([Compiled(model, 1).side(), kind(model, 1).side()])
            ours.append(result.seconds[:, 0])
            cells = [marked(kind.name, result), spread(1e6 * result.seconds[:, 1], 1), spread(result.gain(0, 1), 2)]
            rows.append([work.name, *cells])
        if ours:
            found.rows.append([work.name, Compiled.name, spread(1e6 * np.concatenate(ours), 1), ""])
        found.rows += rows
    return found


def loaded(threads: int, timed: Stopwatch, begin: Begin) -> Section:
    """Measure the compiled engine and others without and with a process that keeps a core busy."""
    text = SHARED.format(threads=threads, cores=os.cpu_count())
    found = Section(LOADED_TITLE, text)
    found.headings = ["model", "by", "us a step", "beside the process, us", "longer by", "compiled is faster by"]
    with _busy() as load:
        for work in SMALL:
            model = Model(work.shapes)
            rows, ours = [], []
            for kind in LOADED:
                begin(f"{work.name}, loaded, {kind.name}")
                if (reason := Compiled.why_not() or kind.why_not()) is not None:
                    rows.append([work.name, kind.name, reason, "", "", ""])
                    continue
                quiet = [Compiled(model, threads).side(), kind(model, threads).side()]
                busy = [Side(side.step, side.feed, partial(load, side)) for side in quiet]
                result = timed([*quiet, *busy])
                ours.append(result.seconds[:, ::2])
                faster = spread(result.gain(2, 3), 2)
                rows.append([work.name, kind.name, *_slowed(result.seconds[:, 1::2]), faster])
            if ours:
                found.rows.append([work.name, Compiled.name, *_slowed(np.concatenate(ours)), ""])
            found.rows += rows
    return found


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
