"""xpopt on a GPU: first whether it is right there, then how fast, beside torch and beside a copy on the device.

python tests/benchmarks/gpu.py [--quick] [--only PART ...] [--write docs/benchmarks-cuda.md]

It needs no installation: a Python with NumPy, array-api-compat and CuPy runs it from a checkout, offline. What else is
missing is named, and the rest runs. Without a GPU, what can be checked is checked on the test suite's stand-in, and the
benchmarks are gone through without a clock. A figure is printed, or a page written, on a GPU alone.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).parents[2]))
sys.path.insert(2, str(Path(__file__).parents[1]))
sys.path.insert(3, str(Path(__file__).parents[1] / "backends"))

import gpu_checks as checks
import gpu_races as races
from gpu_card import Card, StandIn
from measuring import Stopwatch
from report import Begin, Section, progress, show, version
from works import WORKS, M, Work

import xpopt
from xpopt._arrays.machine import why_not

TIMES = ("models", "optimizers", "update", "host", "memory")

PAGE = """\
# Benchmarks on CUDA

Whether xpopt is right on this GPU, and what a step costs there.

{setting}

Each figure is a median, with the quartiles in brackets. What is compared takes turns in blocks of calls; gains are
taken between neighbouring blocks before the median is, so they need not be those of the columns.

{sections}
`python tests/benchmarks/gpu.py --write docs/benchmarks-cuda.md` checks and measures again and writes this page.
"""

REHEARSED = "Gone through on the stand-in, without a clock: it runs. There is no GPU here, and so no figure."

TINY = (Work("2 x 100", ((100,),) * 2, 1.0), Work("2 x 100, clipped", ((100,),) * 2, 1.0, clip_norm=1.0))


def main() -> int:
    """Check, measure, print, and write the page if asked to; return 1 if something does not hold, or fails."""
    parts = *checks.CHECKS, *TIMES
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/gpu.py", description="Check and measure on a GPU.")
    parser.add_argument("--quick", action="store_true", help="few rounds, few rules, no model above 20M elements")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts))
    parser.add_argument("--rounds", type=int, help="of blocks, for each figure; default: 20, if quick 5")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page of the documentation here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        card: Any = None
        if (problem := why_not("cupy")) is None:
            card = Card()
        elif (none := StandIn.why_none()) is None:
            card = StandIn(Path(folder))
        else:
            print(f"No GPU: CuPy is {problem}. {none}. Nothing can be checked here.")
            return 0
        where = setting(card)
        print(*where, sep="\n")
        sections: list[Section] = []
        for section in run(card, args.only, args.quick, args.rounds or (5 if args.quick else 20)):
            sections.append(section)
            if section.rows:
                show(section.title, section.headings, section.rows)
            else:
                print(f"\n{section.title}: {REHEARSED}")
            if args.write and card.measures:  # as far as it has come: a GPU may be lent for a short time
                write(args.write, where, sections)
    if args.write and not card.measures:
        print(f"\n{args.write} is not written: it is for what a GPU does, and there is none here.")
    cells = [cell for section in sections for row in section.rows for cell in row]
    return int(checks.NO in cells or races.failed(cells))


def run(card: Any, only: Sequence[str], quick: bool, rounds: int) -> Iterator[Section]:
    """Yield the parts chosen; without a GPU, times lose their rows. What fails is told, and the rest runs."""
    timed = Stopwatch(rounds, 1.0 if quick else 20.0) if card.measures else races.rehearse
    works = [work for work in (*WORKS, races.LARGEST) if not quick or work.size < 20 * M] if card.measures else TINY
    sizes = (races.SIZES[::3] if quick else races.SIZES) if card.measures else [10]
    large = (10 if quick else 100) * M if card.measures else 100
    parts: dict[str, Callable[[Begin], Section]] = {
        "models": partial(races.models, card, works, timed),
        "optimizers": partial(races.optimizers, card, large, timed),
        "update": partial(races.update, card, sizes, timed),
        "host": partial(races.host, card, timed),
        "memory": partial(races.memory, card, large),
    }
    chosen = [name for name in checks.CHECKS if name in only]
    with progress(len(chosen) + races.count(works, sizes, only)) as begin:
        if chosen:
            yield checks.section(card, chosen, quick, begin)
        for name, part in parts.items():
            if name not in only:
                continue
            try:
                section = part(begin)
            except Exception as error:
                traceback.print_exc()
                yield Section(name, "", ["part", "found"], [[name, f"{races.FAILED} {error}"]])
                continue
            if not card.measures and not any(races.failed(row) for row in section.rows):
                section.rows = []
            yield section


def write(page: Path, where: Sequence[str], sections: Sequence[Section]) -> None:
    """Write the page of the documentation."""
    lines = "\n".join(f"- {line}" for line in where)
    text = "\n".join(section.markdown() for section in sections)
    page.write_text(PAGE.format(setting=lines, sections=text), encoding="utf-8")


def setting(card: Any) -> list[str]:
    """Return the hardware, the versions and the day."""
    versions = ", ".join(
        f"{name} {version(name) or 'not installed'}" for name in ("numpy", "array-api-compat", "torch")
    )
    return [
        *card.setting(),
        f"Python {platform.python_version()}, xpopt {xpopt.__version__}, {versions}; {platform.system()}",
        f"{datetime.now(UTC):%Y-%m-%d}; float32 where nothing else is said",
    ]


if __name__ == "__main__":
    sys.exit(main())
