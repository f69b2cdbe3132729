"""xpopt beside its peers, beside textbook NumPy, and beside what is aimed at.

python tests/benchmarks [--quick] [--only PART ...] [--write docs/benchmarks.md]

With --write, each section that is measured takes its place in the page when it is done; the others stay.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cores
import costs
import peers
import ranks
import scaled
import scaling
import single
import whole
from measuring import TRIES, Stopwatch
from page import Page
from report import GOALS, Begin, Section, progress, setting, show
from works import WORKS, M, Work

import xpopt
from xpopt._engine import pool


@dataclass
class Part:
    """What is measured for one section of the page, and of how many races it is made."""

    title: str
    races: int
    measure: Callable[[Stopwatch, Begin], Section]
    tries: float = TRIES
    threads: int | None = None


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description="Measure xpopt beside its peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds, and no model of more than 20M elements")
    names = ", ".join([*parts([], False, 1), *(work.name for work in WORKS)])
    parser.add_argument("--only", nargs="+", metavar="PART", help=names)
    parser.add_argument("--rounds", type=int, help="of blocks, for each figure; default: 20, if quick 5")
    parser.add_argument("--patience", type=float, help="seconds to wait, for each figure, until others are quiet")
    parser.add_argument("--threads", type=int, default=pool.threads(), help="default: %(default)s")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the sections that are measured into this page")
    args = parser.parse_args()
    works = [work for work in WORKS if not args.only or "models" in args.only or work.name in args.only]
    if args.quick:
        works = [work for work in works if work.size < 20 * M or work.name in (args.only or [])]
    every = parts(works, args.quick, args.threads)
    only = args.only or list(every)
    if unknown := set(only) - set(every) - {work.name for work in WORKS}:
        parser.error(f"--only has {', '.join(map(repr, sorted(unknown)))}; it takes {names}")
    if args.write and not set(only) <= set(every):
        parser.error(f"--write takes whole sections; --only is to name some of {', '.join(every)}")
    chosen = [
        part for name, part in every.items() if name in only or (name == "models" and not set(only) <= set(every))
    ]
    peers.check((peers.Compiled, *peers.PEERS), args.threads)
    rounds = args.rounds or (5 if args.quick else 20)
    patience = (1.0 if args.quick else 3.0) if args.patience is None else args.patience
    found: list[Section] = []
    with xpopt.num_threads(args.threads), progress(sum(part.races for part in chosen)) as begin:
        for part in chosen:
            timed = Stopwatch(rounds, patience if part.tries > 1 else 0.0, part.tries)
            start = time.monotonic()
            section = part.measure(timed, begin)
            print(f"{section.title}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            found.append(section)
            if args.write:  # now: what is measured is not lost if the rest is interrupted
                others = f"in {timed.disturbed} of {timed.run} rounds" if part.tries > 1 else f"load {_load():.1f}"
                page = Page.read(args.write)
                page.take(section, setting(part.threads or args.threads, others if timed.run else ""))
                page.write(args.write, [part.title for part in every.values()])
    for section in found:
        if section.rows:
            show(section.title, section.headings, section.rows)
    show("Goals", GOALS, [[section.title, *goal.cells()] for section in found for goal in section.goals])


def parts(works: Sequence[Work], quick: bool, threads: int) -> dict[str, Part]:
    """Return what can be measured, in the order of the page."""
    sizes = single.SIZES[::3] if quick else single.SIZES
    size, runs = (10 * M, 3) if quick else (100 * M, 9)
    alone, loaded = cores.count()
    return {
        "models": Part(whole.TITLE, whole.count(works), partial(whole.section, works, threads)),
        "threads": Part(cores.ONE_TITLE, alone, cores.one_thread, threads=1),
        "loaded": Part(cores.LOADED_TITLE, loaded, partial(cores.loaded, threads), tries=1),
        "optimizers": Part(whole.OPTIMIZERS_TITLE, len(whole.OPTIMIZERS), partial(whole.optimizers, threads)),
        "update": Part(single.TITLE, 1 + len(single.CASES) * len(sizes), partial(single.section, sizes)),
        "host": Part(costs.HOST_TITLE, len(costs.COUNTS), costs.host),
        "scaling": Part(scaling.TITLE, len(scaling.ENGINES) * len(scaling.SIZES), scaling.section, threads=1),
        "scaled": Part(
            scaled.TITLE, scaled.count(), lambda _, begin: scaled.section(16 * M if quick else 64 * M, runs, begin)
        ),
        "ranks": Part(
            ranks.TITLE, len(ranks.RANKS), lambda _, begin: ranks.section(16 * M if quick else 64 * M, 9, begin)
        ),
        "memory": Part(costs.MEMORY_TITLE, 2, lambda timed, begin: costs.memory(size, begin)),
        "start": Part(costs.START_TITLE, 1 + len(costs.STARTS), lambda timed, begin: costs.start(runs, begin)),
    }


def _load() -> float:
    """Return how many processes have wanted a core in the last minute, this one among them; 0 where nothing says."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


if __name__ == "__main__":
    main()
