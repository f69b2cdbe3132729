"""This checkout beside another revision of it, both in one process, their steps in turns.

python tests/benchmarks/revisions.py REVISION [--rounds N] [--only TEXT ...]

The package is loaded three times, under names of its own: as it is here, and twice as it was at the revision. What the
two equal copies differ by is the noise. A row is slower if the median of its gains is below `LIMIT` and below the lower
quartile of the noise as well.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Side, Stopwatch, spread
from report import marked, progress, show
from works import Model, Shapes

ROOT = Path(__file__).parents[2]
LIMIT = 0.97
ENGINES = ("blocked", "compiled")
HEADINGS = ["step", "before, us", "now, us", "gain", "noise", "slower"]


@dataclass(frozen=True)
class Row:
    """A step of an optimizer.

    Parameters
    ----------
    name : str
        What it is called.
    shapes : tuple of tuple of int
        Of the parameters.
    optimizer : str
        The class.
    settings : dict
        What it is made with.
    single : bool
        Whether the step is made by `update`, which returns new arrays; else by `update_all`, in place.
    """

    name: str
    shapes: Shapes
    optimizer: str
    settings: dict[str, Any]
    single: bool = False


def rows() -> Iterator[Row]:
    """Yield the steps that are compared."""
    methods = {"Adam": {}, "SGD": {"momentum": 0.9}, "AdaGrad": {}, "RMSProp": {}}
    for size in (10, 1000, 100_000):
        yield Row(f"update, Adam, {size:,}", ((size,),), "Adam", {}, single=True)
    for name, settings in methods.items():
        yield Row(f"update, {name}, 10, stepped", ((10,),), name, settings, single=True)
    for count, size in ((1, 1), (20, 5000), (200, 1000), (3000, 3500), (100, 100_000), (1, 10_000_000)):
        yield Row(f"update_all, Adam, {count} x {size:,}", ((size,),) * count, "Adam", {})
    for name, settings in methods.items():
        yield Row(f"update_all, {name}, 20 x 5,000", ((5000,),) * 20, name, settings)
    for option in ({"clip_norm": 1.0}, {"nonfinite": "skip"}):
        yield Row(f"update_all, Adam, 20 x 5,000, {option}", ((5000,),) * 20, "Adam", option)


def load(revision: str, folder: Path) -> list[Any]:
    """Return the package as it was, as it is here, and as it was once more."""
    packed = subprocess.run(["git", "archive", revision, "xpopt"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in ("before", "again"):
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder / name, filter="data")
        (folder / name / "xpopt").rename(folder / f"xpopt_{name}")
    (folder / "xpopt_now").symlink_to(ROOT / "xpopt")
    sys.path.insert(0, str(folder))
    return [importlib.import_module(f"xpopt_{name}") for name in ("before", "now", "again")]


def side(package: Any, engine: str, row: Row) -> Side:
    """Return a step by one of the packages."""
    model = Model(row.shapes)
    opt = getattr(package, row.optimizer)(**row.settings)
    params = {f"w{i}": x for i, x in enumerate(model.params())}
    grads = [dict(zip(params, one, strict=True)) for one in model.grads]
    now = grads[0]

    def feed(number: int) -> None:
        nonlocal now
        now = grads[number % 2]

    def by_update() -> None:
        for name, x in params.items():
            params[name] = opt.update(x, now[name], name)
        opt.step()

    step: Callable[[], object] = by_update if row.single else lambda: opt.update_all(params, now, out=params)
    return Side(step, feed, partial(package.engine, engine))


def compare(packages: Sequence[Any], chosen: Sequence[tuple[str, Row]], timed: Stopwatch) -> list[list[str]]:
    """Time every row; return the cells of the table."""
    cells = []
    with progress(len(chosen)) as begin:
        for engine, row in chosen:
            begin(f"{engine}: {row.name}")
            result = timed([side(package, engine, row) for package in packages], 0.05)
            gain, noise = result.gain(1, 0), result.gain(2, 0)
            slower = np.median(gain) < min(LIMIT, np.percentile(noise, 25))
            before, now = (spread(1e6 * result.seconds[:, k], 1) for k in (0, 1))
            name = marked(f"{engine}: {row.name}", result)
            cells.append([name, before, now, spread(gain, 3), spread(noise, 3), "**slower**" if slower else ""])
    return cells


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks/revisions.py", description=__doc__.splitlines()[0])
    parser.add_argument("revision", help="a commit, branch or tag")
    parser.add_argument("--rounds", type=int, default=20, help="of blocks, for each row; default: %(default)s")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds to wait until others are quiet, by row")
    parser.add_argument("--only", nargs="+", metavar="TEXT", default=[""], help="the rows that hold one of these")
    args = parser.parse_args()
    engines = ENGINES if importlib.util.find_spec("llvmlite") else ENGINES[:1]
    every = [(engine, row) for engine in engines for row in rows()]
    chosen = [(engine, row) for engine, row in every if any(text in f"{engine}: {row.name}" for text in args.only)]
    timed = Stopwatch(args.rounds, args.patience)
    with tempfile.TemporaryDirectory() as folder:
        cells = compare(load(args.revision, Path(folder)), chosen, timed)
    show(f"Here beside {args.revision}; gain is before / now, noise is before / before", HEADINGS, cells)
    print(f"{timed.disturbed} of {timed.run} rounds were disturbed by other processes; a star stands where most were")
    sys.exit(any(row[-1] for row in cells))


if __name__ == "__main__":
    main()
