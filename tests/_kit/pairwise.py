"""Combinations in which each two values of two axes meet: far fewer than all, and enough to find what two do together.

They are in ``pairs.csv`` beside this file. After an algorithm, an option or another value has been added,
``cd tests && python -m _kit.pairwise`` writes it anew.
"""

from __future__ import annotations

import csv
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .table import BY_RULE
from .variants import VARIANTS

AXES: Mapping[str, Sequence[str]] = {
    "algorithm": list(BY_RULE),
    "option": [name for name in VARIANTS if name != "accumulated"],  # where a call is no step
    "dtype": ["float16", "bfloat16", "float32", "float64"],
    "engine": ["eager", "blocked", "compiled"],
    "out": ["new", "in place", "apart"],
    "way": ["update", "update_all"],
}
FILE = Path(__file__).with_name("pairs.csv")
CANDIDATES = 30

Pair = tuple[tuple[str, str], tuple[str, str]]


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """Return the pairs of values that meet in a row."""
    return set(itertools.combinations(row.items(), 2))


def all_pairs(axes: Mapping[str, Sequence[str]] = AXES) -> set[Pair]:
    """Return the pairs that have to meet."""
    return {
        ((a, x), (b, y))
        for (a, xs), (b, ys) in itertools.combinations(axes.items(), 2)
        for x, y in itertools.product(xs, ys)
    }


def generate(axes: Mapping[str, Sequence[str]] = AXES, seed: int = 0) -> list[dict[str, str]]:
    """Choose one row after the other: of some that begin with a missing pair, the one that brings the most of them."""
    draw, missing, rows = random.Random(seed), all_pairs(axes), []
    while missing:
        waiting = sorted(missing)
        candidates = [_filled(dict(draw.choice(waiting)), axes, missing, draw) for _ in range(CANDIDATES)]
        best = max(candidates, key=lambda row: len(pairs_of(row) & missing))
        rows.append(best)
        missing -= pairs_of(best)
    return rows


def _filled(
    chosen: dict[str, str], axes: Mapping[str, Sequence[str]], missing: set[Pair], draw: random.Random
) -> dict[str, str]:
    """Fill the other axes in any order, each with the value that brings the most missing pairs."""
    others = [axis for axis in axes if axis not in chosen]
    for axis in draw.sample(others, len(others)):
        values = draw.sample(axes[axis], len(axes[axis]))
        tried = [_in_order({**chosen, axis: value}, axes) for value in values]
        chosen = max(tried, key=lambda row: len(pairs_of(row) & missing))
    return chosen


def _in_order(row: Mapping[str, str], axes: Iterable[str]) -> dict[str, str]:
    return {axis: row[axis] for axis in axes if axis in row}


def compile_few(rows: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """Let blocks run what need not be compiled, which takes longest: what meets there meets in another row too."""
    rows = [dict(row) for row in rows]
    compiled = [row for row in rows if row["engine"] == "compiled"]
    met = Counter(pair for row in compiled for pair in pairs_of(row))
    for row in compiled:
        if all(met[pair] > 1 for pair in pairs_of(row) if ("engine", "compiled") in pair):
            met -= Counter(pairs_of(row))
            row["engine"] = "blocked"
    return rows


def read() -> list[dict[str, str]]:
    """Return the rows of the file."""
    with FILE.open(newline="") as file:
        return list(csv.DictReader(file))


def write() -> None:
    """Write the file."""
    with FILE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(AXES), lineterminator="\n")
        writer.writeheader()
        writer.writerows(compile_few(generate()))


if __name__ == "__main__":
    write()
