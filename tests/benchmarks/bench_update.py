"""What one `update` costs beside the textbook NumPy expression, and what `import xpopt` costs.

    python tests/benchmarks/bench_update.py [--sizes N ...] [--blocks N] [--write docs/benchmarks.md]

Both sides are calls of a closure in the same loop, on the same gradient, and must agree before they are timed. Blocks
of calls alternate (A B, B A, A B, ...), so that whatever else the machine does falls on both, each after a call that is
not timed and brings its own arrays into the cache. A pair of neighbours gives one difference and one ratio; a pair in
which this process had to wait for a core is measured again. Medians, with quartiles. Nothing is pinned; the garbage
collector is left alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
import numpy.typing as npt

import xpopt

Array: TypeAlias = npt.NDArray[Any]
Step = Callable[[], Array]

BLOCK_SECONDS = 0.005  # at least, and at least so many calls:
CALLS = 5
TRIES = 4  # as many times the pairs wanted, until so many are undisturbed
IMPORT_RUNS = 25
IMPORT = """
import time, numpy, array_api_compat, array_api_compat.numpy
begin = time.perf_counter()
import xpopt
print(time.perf_counter() - begin)
"""


def by_xpopt(opt: xpopt.OptimizerBase, p: Array, g: Array) -> Step:
    """Return one update by `opt`."""

    def step() -> Array:
        nonlocal p
        p = opt.update(p, g, "W")
        return p

    return step


# The textbook: what a program would hold that has no optimizer library, with the same hyperparameters.


def sgd(p: Array, g: Array, lr: float = 0.01, momentum: float = 0.9) -> Step:
    u = np.zeros_like(p)

    def step() -> Array:
        nonlocal p, u
        u = momentum * u + lr * g
        p = p - u
        return p

    return step


def adagrad(p: Array, g: Array, lr: float = 0.01, eps: float = 1e-7) -> Step:
    s = np.zeros_like(p)

    def step() -> Array:
        nonlocal p, s
        s = s + g**2
        p = p - lr * g / (np.sqrt(s) + eps)
        return p

    return step


def rmsprop(p: Array, g: Array, lr: float = 0.001, decay: float = 0.9, eps: float = 1e-7) -> Step:
    v = np.zeros_like(p)

    def step() -> Array:
        nonlocal p, v
        v = decay * v + (1 - decay) * g**2
        p = p - lr * g / (np.sqrt(v) + eps)
        return p

    return step


def adam(p: Array, g: Array, lr: float = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7) -> Step:
    m = v = np.zeros_like(p)
    t = 0

    def step() -> Array:
        nonlocal p, m, v, t
        t += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        return p

    return step


CASES: dict[str, tuple[Callable[[], xpopt.OptimizerBase], Callable[[Array, Array], Step]]] = {
    "Adam": (xpopt.Adam, adam),
    "SGD with momentum": (lambda: xpopt.SGD(momentum=0.9), sgd),
    "AdaGrad": (xpopt.AdaGrad, adagrad),
    "RMSProp": (xpopt.RMSProp, rmsprop),
}


def run_block(step: Step, calls: int) -> tuple[float, bool]:
    """Return the microseconds of a call, over one block, and whether this process had a core all the while."""
    step()
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for _ in repeat(None, calls):
        step()
    cpu, wall = time.process_time() - begin_cpu, time.perf_counter() - begin
    return wall / calls * 1e6, cpu > 0.97 * wall


def measure(name: str, size: int, pairs: int) -> tuple[Array, int]:
    """Return the microseconds of a call, by xpopt and by the textbook: (pairs, 2); and how many were disturbed."""
    make, textbook = CASES[name]
    rng = np.random.default_rng(size)
    p, g = rng.normal(size=(2, size)).astype(np.float32)
    sides = by_xpopt(make(), p, g), textbook(p, g)
    for _ in range(5):  # warms up, and shows that both compute the same
        a, b = (step() for step in sides)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    calls = max(CALLS, int(BLOCK_SECONDS * 1e6 / max(run_block(step, CALLS)[0] for step in sides)))
    for step in sides:
        run_block(step, calls)
    calm: list[list[float]] = []
    disturbed: list[list[float]] = []
    for attempt in range(TRIES * pairs):
        order = (0, 1) if attempt % 2 else (1, 0)
        blocks = {side: run_block(sides[side], calls) for side in order}
        times = [blocks[side][0] for side in (0, 1)]
        (calm if all(alone for _, alone in blocks.values()) else disturbed).append(times)
        if len(calm) == pairs:
            break
    return np.array((calm + disturbed)[:pairs]), pairs - len(calm)


def measure_import() -> Array:
    """Return the milliseconds of `import xpopt` after its dependencies, each in a new interpreter."""
    # The first run, which is left out, compiles every module into a folder of its own; the others find them compiled,
    # as an installed package is, whatever this process was told about bytecode.
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        runs = [
            subprocess.check_output([sys.executable, "-c", IMPORT], env=environment, text=True)
            for _ in range(IMPORT_RUNS + 1)
        ]
    return 1e3 * np.array(runs[1:], dtype=np.float64)


def spread(values: Iterable[float], digits: int, sign: str = "") -> str:
    """Write the median and, in brackets, the quartiles."""
    low, middle, high = (f"{x:{sign},.{digits}f}" for x in np.percentile(list(values), [25, 50, 75]))
    return f"{middle} [{low}, {high}]"


HEADINGS = ["optimizer", "elements", "xpopt, us", "textbook, us", "difference, us", "ratio"]


def row(name: str, size: int, times: Array) -> list[str]:
    """Return the cells of one line of the table."""
    ours, theirs = times.T
    digits = 2 if np.median(ours) < 100 else 0
    figures = spread(ours, digits), spread(theirs, digits), spread(ours - theirs, digits, "+"), spread(ours / theirs, 2)
    return [name, f"{size:,}", *figures]


def aims(times: dict[tuple[str, int], Array], import_ms: Array) -> list[str]:
    """Return what the project aims at, each with what was measured."""
    lines = []
    if ("Adam", 10**6) in times:
        ours, theirs = times["Adam", 10**6].T
        percent = spread(100 * (ours / theirs - 1), 1, "+")
        lines.append(f"Adam, {10**6:,} elements: {percent} % beside the textbook; the aim is at most +5 %")
    if ("Adam", 10) in times:
        ours, theirs = times["Adam", 10].T
        lines.append(f"Adam, 10 elements: {spread(ours - theirs, 2, '+')} us a call; the aim is at most +5 us")
    lines.append(f"`import xpopt`, over its dependencies: {spread(import_ms, 1)} ms; the aim is below 20 ms")
    return lines


def setting(pairs: int, disturbed: int, total: int) -> list[str]:
    """Return the hardware and the versions, and how it was measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.partition(":")[2].strip() for x in cpuinfo.open() if x.startswith("model name")), model)
    modules = ", ".join(f"{module.__name__} {module.__version__}" for module in (xpopt, np, array_api_compat))
    return [
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; not measured on a GPU",
        f"Python {platform.python_version()}, {modules}",
        f"{datetime.now(UTC):%Y-%m-%d}; float32; {pairs} pairs of alternating blocks a line",
        f"other processes shared the machine: {disturbed / total:.0%} of the pairs had to wait for a core",
    ]


PAGE = """\
# Benchmarks

What one `update` costs beside the textbook NumPy expression for the same step, which allocates its temporaries just
as a program without an optimizer library would. For Adam that is

```python
m = b1 * m + (1 - b1) * g
v = b2 * v + (1 - b2) * g**2
p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
```

{setting}

Each figure is a median, with the quartiles in brackets. Differences and ratios are taken between neighbouring blocks
before the median is, so they need not be those of the two columns.

{table}

{aims}

`nox -s bench -- --write docs/benchmarks.md` measures again and writes this page.
"""


def to_markdown(rows: list[list[str]]) -> str:
    """Write the table for the page."""
    rule = ["---", *("---:" for _ in HEADINGS[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEADINGS, rule, *rows])


def show(rows: list[list[str]]) -> None:
    """Print the table: by rich where it is installed."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
        for cells in [HEADINGS, *rows]:
            print("  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))
        return
    table = Table()
    table.add_column(HEADINGS[0], no_wrap=True)
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for number, cells in enumerate(rows, 1):
        table.add_row(*cells, end_section=number == len(rows) or rows[number][0] != cells[0])
    Console(width=max(Console().width, 160)).print(table)  # a narrow window wraps lines; no figure is cut


def main() -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**n for n in range(1, 8)], help="elements")
    parser.add_argument("--blocks", type=int, default=40, help="of each side; default: %(default)s")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page of the documentation here")
    args = parser.parse_args()
    if min(args.sizes) < 1 or args.blocks < 1:
        parser.error("wanted --sizes and --blocks of at least 1")
    times, disturbed = {}, 0
    for name in CASES:
        for size in args.sizes:
            print(f"{name}, {size:,} ...", file=sys.stderr, flush=True)
            times[name, size], waited = measure(name, size, args.blocks)
            disturbed += waited
    rows = [row(name, size, values) for (name, size), values in times.items()]
    goals = aims(times, measure_import())
    where = setting(args.blocks, disturbed, args.blocks * len(rows))
    show(rows)
    print(*goals, *where, sep="\n")
    if args.write:
        bullets = ["\n".join(f"- {line}" for line in lines) for lines in (where, goals)]
        page = PAGE.format(setting=bullets[0], table=to_markdown(rows), aims=bullets[1])
        args.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
