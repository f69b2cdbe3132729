"""xpopt beside its peers, beside textbook NumPy, and beside what is aimed at.

python tests/benchmarks [--quick] [--only PART ...] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import costs
import peers
import scaling
import single
import whole
from measuring import Stopwatch
from report import GOALS, Begin, Section, conclusion, progress, setting, show, to_markdown
from works import WORKS, M

import xpopt
from xpopt._engine import pool

PAGE = """\
# Benchmarks

What an optimizer step costs on the CPU: beside other libraries, beside textbook NumPy, and beside what xpopt aims at,
met or not.

{conclusion}

```{{eval-rst}}
.. plot:: pictures/benchmarks.py peers
   :alt: For each model and each other library, how many times as fast the compiled engine is.

.. plot:: pictures/benchmarks.py sizes
   :alt: The time of one update by the number of elements, by textbook NumPy and two engines of xpopt.
```

{setting}

Each figure is a median, with the quartiles in brackets. What is compared takes turns in blocks of calls; gains and
differences are taken between neighbouring blocks before the median is, so they need not be those of the columns.

## Goals

{goals}

{sections}
## On a CUDA device

{cuda}

`nox -s bench -- --write docs/benchmarks.md` measures again and writes this page.
"""

CUDA = "Not measured on a GPU."


PARTS = ("models", "optimizers", "update", "host", "scaling", "memory", "start")


def main() -> None:
    """Measure, print, and write the page if asked to."""
    names = *PARTS, *(work.name for work in WORKS)
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description="Measure xpopt beside its peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds, and no model of more than 20M elements")
    parser.add_argument("--only", nargs="+", choices=names, default=PARTS, metavar="PART", help=", ".join(names))
    parser.add_argument("--rounds", type=int, help="of blocks, for each figure; default: 20, if quick 5")
    parser.add_argument("--patience", type=float, help="seconds to wait, for each figure, until others are quiet")
    parser.add_argument("--threads", type=int, default=pool.threads(), help="default: %(default)s")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page of the documentation here")
    args = parser.parse_args()
    rounds = args.rounds or (5 if args.quick else 20)
    timed = Stopwatch(rounds, (1.0 if args.quick else 20.0) if args.patience is None else args.patience)
    with xpopt.num_threads(args.threads):
        sections = measure(args.only, args.quick, args.threads, timed)
    goals = [goal.cells() for section in sections for goal in section.goals]
    where = setting(args.threads, timed.run, timed.disturbed)
    for section in sections:
        if section.rows:
            show(section.title, section.headings, section.rows)
    show("Goals", GOALS, goals)
    print(*where, CUDA, sep="\n")
    if args.write:
        page = PAGE.format(
            conclusion=conclusion(
                [row for section in sections if section.title == whole.TITLE for row in section.rows]
            ),
            setting="\n".join(f"- {line}" for line in where),
            goals=to_markdown(GOALS, goals),
            sections="\n".join(section.markdown() for section in sections),
            cuda=CUDA,
        )
        args.write.write_text(page, encoding="utf-8")


def measure(only: Sequence[str], quick: bool, threads: int, timed: Stopwatch) -> list[Section]:
    """Measure what was chosen."""
    peers.check((peers.Compiled, *peers.PEERS), threads)
    works = [work for work in WORKS if work.name in only or ("models" in only and (not quick or work.size < 20 * M))]
    sizes = single.SIZES[::3] if quick else single.SIZES
    size, runs = (10 * M, 3) if quick else (100 * M, 9)
    # Each: how many things it measures, and what measures them.
    parts: dict[str, tuple[int, Callable[[Begin], Section]]] = {
        "optimizers": (len(whole.OPTIMIZERS), lambda begin: whole.optimizers(threads, timed, begin)),
        "update": (1 + len(single.CASES) * len(sizes), lambda begin: single.section(sizes, timed, begin)),
        "host": (len(costs.COUNTS), lambda begin: costs.host(timed, begin)),
        "scaling": (
            len(scaling.ENGINES) * len(scaling.SIZES),
            lambda begin: scaling.section(timed, begin),
        ),
        "memory": (2, lambda begin: costs.memory(size, begin)),
        "start": (1 + len(costs.STARTS), lambda begin: costs.start(runs, begin)),
    }
    chosen = [part for name, part in parts.items() if name in only]
    if works:
        chosen.insert(0, (whole.count(works), lambda begin: whole.section(works, threads, timed, begin)))
    with progress(sum(count for count, _ in chosen)) as begin:
        return [part(begin) for _, part in chosen]


if __name__ == "__main__":
    main()
