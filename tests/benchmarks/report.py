"""Goals, tables and progress: for the terminal, and for the page of the documentation."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
from measuring import Array, Race, spread

import xpopt

LIBRARIES = ("numpy", "array-api-compat", "llvmlite", "numba", "torch", "jax", "optax", "thinc")

STAR = " *"

Begin = Callable[[str], None]
"""To be called with the name of each thing to measure as it begins."""


@dataclass
class Goal:
    """What is aimed at, and what was found."""

    what: str
    wanted: str
    found: str
    met: bool

    def cells(self) -> list[str]:
        doubt = "?" if self.what.endswith(STAR) else ""
        return [self.what, self.wanted, self.found, ("yes" if self.met else "no" if doubt else "**no**") + doubt]


def at_least(what: str, wanted: float, gains: Array, beside: str, *, noise: float = 1.0) -> Goal:
    """Return a goal for how many times as fast something is: met if the median is, to within the noise."""
    text = f"{wanted:g} x {beside}" + (f" ({wanted * noise:g} for noise)" if noise != 1 else "")
    return Goal(what, f"at least {text}", f"{spread(gains, 2)} x", bool(np.median(gains) >= wanted * noise))


def at_most(what: str, wanted: float, values: Array, unit: str, digits: int = 2) -> Goal:
    """Return a goal for what something costs: met if the median is."""
    return Goal(what, f"at most {wanted:g} {unit}", spread(values, digits), bool(np.median(values) <= wanted))


def near(what: str, percent: float, gains: Array, beside: str) -> Goal:
    """Return a goal for how many percent more time something takes, `gains` being how many times as fast it is."""
    return at_most(what, percent, 100 * (1 / gains - 1), f"% over {beside}", 1)


def marked(name: str, result: Race) -> str:
    """Return the name of a figure, with a star if other processes took part in most of its rounds."""
    return name + STAR if 2 * result.disturbed > len(result.seconds) else name


@dataclass
class Section:
    """A part of the page."""

    title: str
    text: str
    headings: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def markdown(self) -> str:
        table = f"\n{to_markdown(self.headings, self.rows)}\n" if self.rows else ""
        return f"## {self.title}\n\n{self.text}\n{table}"


GOALS = ["section", "case", "goal", "measured", "met"]
SETTING = ["section", "measured on", "threads", "date", "other processes", "versions"]


def setting(threads: int, others: str) -> list[str]:
    """Return how a section was measured: hardware, threads, date, what other processes did, and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.partition(":")[2].strip() for x in cpuinfo.open() if x.startswith("model name")), model)
    versions = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := version(name)))
    return [
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        str(threads),
        f"{datetime.now(UTC):%Y-%m-%d}",
        others,
        f"Python {platform.python_version()}, xpopt {xpopt.__version__}, {versions}",
    ]


def conclusion(rows: Sequence[Sequence[str]]) -> str:
    """Say how the compiled engine compares with others, from the rows of all models: model, library, time, gain."""
    gains: dict[str, list[float]] = {}
    for _, by, _, gain in rows:
        if gain and not by.startswith(("xpopt", "the traffic")):
            gains.setdefault(by.removesuffix(STAR), []).append(float(gain.split()[0].replace(",", "")))
    if not gains:
        return "No other library was measured."
    ranges = [f"{min(of):.2g} to {max(of):.2g} ({by})" for by, of in gains.items()]
    return f"A step of Adam takes this many times as long as with the compiled engine: {', '.join(ranges)}."


def version(distribution: str) -> str | None:
    """Return what is installed, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def to_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """Write a table for the page; columns behind those of text are aligned on the right."""
    rule = ["---" if column < text else "---:" for column in range(len(headings))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, rule, *rows])


def show(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: by rich where it is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        print(f"\n{title}")
        for cells in [headings, *rows]:
            print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
        return
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for number, cells in enumerate(rows, 1):
        table.add_row(*cells, end_section=number == len(rows) or rows[number][0] != cells[0])
    Console(width=max(Console().width, 180)).print(table)  # a narrow window wraps lines; no figure is cut


@contextmanager
def progress(total: int) -> Iterator[Begin]:
    """Show how far the work is, and for how long it has run."""
    if not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        numbers, start = count(1), time.monotonic()

        def say(name: str) -> None:
            minutes, seconds = divmod(round(time.monotonic() - start), 60)
            print(f"{next(numbers)} of {total}, {minutes}:{seconds:02}: {name}", file=sys.stderr, flush=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    # drawn when a part begins, and at no other time: a clock that ticks would take part in what is measured
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        begun = count()
        yield lambda name: bar.update(task, completed=next(begun), description=name, refresh=True)
        bar.update(task, completed=total, description="", refresh=True)
