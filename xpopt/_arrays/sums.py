"""Sums of NumPy arrays, added up in one order whatever adds them: numbers have the same bits on all engines.

A sum is taken in float64. Elements are taken in the order of memory, in pieces of 4096. Each piece has 256 lanes, of
which lane ``j`` adds up the elements ``j``, ``j + 256`` and so on; the lanes are then folded in halves. The sums of the
pieces are added up in the same way, until there is one. Largest and smallest elements are found along the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

PIECE = 4096
"""Elements that are summed together first."""

LANES = 256
"""Sums that go on side by side in a piece."""

FAR = 2.0**600
"""What brings the squares of very small and very large numbers of float64 among those that have all digits."""

SMALL = 2.0**-900
"""A sum of squares below which some of its terms may have lost digits."""


class Way(NamedTuple):
    """One of the numbers that a reduction is made of, and how elements come together in it."""

    join: str  # "add", "maximum" or "minimum"
    start: float  # that of nothing
    square: bool = False
    factor: float = 1.0  # of each element, before it is squared


_SUM, SQUARES = Way("add", 0.0), Way("add", 0.0, square=True)
_SCALED = (SQUARES, Way("add", 0.0, square=True, factor=1 / FAR), Way("add", 0.0, square=True, factor=FAR))

WAYS: dict[str, tuple[Way, ...]] = {
    "sum": (_SUM,),
    "mean": (_SUM,),
    "max": (Way("maximum", -np.inf),),
    "min": (Way("minimum", np.inf),),
    "vector_norm": (SQUARES,),
}
"""By reduction, what it is made of."""


def ways(op: str, *, wide: bool) -> tuple[Way, ...]:
    """Return what a reduction of numbers is made of; `wide` says whether they are float64."""
    return _SCALED if wide and op == "vector_norm" else WAYS[op]


def flat(x: Any) -> Any:
    """Return the elements of an array in the order of memory; in C order where it has neither that nor Fortran's."""
    if x.ndim == 1:
        return x
    if x.flags.c_contiguous:
        return x.reshape(-1)
    return x.T.reshape(-1) if x.flags.f_contiguous else x.reshape(-1)


_BLOCK = 16 * PIECE
"""Elements that are converted at once."""


def of_pieces(x: Any, way: Way) -> Any:
    """Return the sum of each piece of an array of one dimension, as float64."""
    found = np.empty(-(-len(x) // PIECE))
    for start in range(0, len(x), _BLOCK):
        values = _terms(x[start : start + _BLOCK], way)
        join, first = _JOIN[way.join], start // PIECE
        whole = len(values) // PIECE
        if whole:
            lanes = join.reduce(values[: whole * PIECE].reshape(whole, -1, LANES), axis=1)
            found[first : first + whole] = _folded(lanes, join)
        if rest := len(values) - whole * PIECE:
            lanes, values = np.full(LANES, way.start), values[whole * PIECE :]
            if rows := rest // LANES:
                lanes = join.reduce(values[: rows * LANES].reshape(rows, LANES), axis=0)
            if rest := rest % LANES:
                join(lanes[:rest], values[rows * LANES :], out=lanes[:rest])
            found[first + whole] = _folded(lanes, join)
    return found


_JOIN: dict[str, Any] = {"add": np.add, "maximum": np.maximum, "minimum": np.minimum}


def _terms(x: Any, way: Way) -> Any:
    values = x.astype(np.float64, copy=False)
    if way.factor != 1.0:
        values = values * way.factor
    return values * values if way.square else values


def _folded(lanes: Any, join: Any) -> Any:
    width = LANES
    while width > 1:
        width //= 2
        lanes = join(lanes[..., :width], lanes[..., width : 2 * width])
    return lanes[..., 0]


def total(values: Any, way: Way) -> float:
    """Return what an array of one dimension comes to."""
    of_sums = way._replace(square=False, factor=1.0)
    if len(values) == 0:
        return way.start
    values, way = of_pieces(values, way), of_sums
    while len(values) > 1:
        values = of_pieces(values, way)
    return float(values[0]) + 0.0  # no zero is negative


def totals(sums: Any, counts: Any, way: Way) -> Any:
    """Return what the sums of the pieces of several arrays come to.

    Parameters
    ----------
    sums : ndarray of float64
        Those of one array after the other.
    counts : ndarray of int64, (arrays,)
        How many pieces each has.
    way : Way
        How they come together.

    Returns
    -------
    ndarray of float64, (arrays,)
        The totals.
    """
    if len(sums) == len(counts) and counts.all():  # one each
        return sums + 0.0
    of_sums = way._replace(square=False, factor=1.0)
    found = np.full(len(counts), way.start)
    firsts = np.cumsum(counts) - counts
    single = counts == 1
    found[single] = sums[firsts[single]]
    for k in np.flatnonzero(counts > LANES).tolist():
        found[k] = total(sums[firsts[k] : firsts[k] + counts[k]], of_sums)
    few = np.flatnonzero((counts > 1) & (counts <= LANES))
    if len(few):
        lanes = np.full((len(few), LANES), way.start)
        present = np.arange(LANES) < counts[few, np.newaxis]
        lanes[present] = sums[(firsts[few, np.newaxis] + np.arange(LANES))[present]]
        found[few] = _folded(lanes, _JOIN[way.join])
    return found + 0.0


def finished(op: str, found: Sequence[Any], sizes: Any) -> Any:
    """Return a reduction, as float64, of what its ways have come to, of one array or of several."""
    first, *others = found
    if op == "mean":
        return np.divide(first, sizes)
    if op != "vector_norm":
        return first
    if others:
        large, small = others
        lost = np.where(first < SMALL, np.sqrt(small) / FAR, np.sqrt(first))
        return np.where(np.isposinf(first), np.sqrt(large) * FAR, lost)
    return np.sqrt(first)


def measured(op: str, x: Any) -> list[float]:
    """Return what the ways of a reduction of a whole array come to."""
    elements = flat(np.asarray(x))
    return [total(elements, way) for way in ways(op, wide=elements.dtype == np.float64)]


@np.errstate(all="ignore")
def reduced(op: str, x: Any) -> Any:
    """Return a reduction of a whole array as an array of shape () of its dtype, rounded once."""
    return np.asarray(finished(op, measured(op, x), x.size)).astype(x.dtype)


def joined(way: Way, found: Iterable[float]) -> float:
    """Return what the totals of several arrays come to together."""
    return total(np.fromiter(found, np.float64), way._replace(square=False, factor=1.0))


def squares_of(norm: float) -> list[float]:
    """Return what the ways of a norm of float64 come to, of one number."""
    with np.errstate(all="ignore"):
        return [float(np.square(np.float64(norm) * way.factor)) for way in _SCALED]


def widened(found: Sequence[float]) -> tuple[float, ...]:
    """Return what the ways of a norm of float64 come to, of the squares of float32, none of which is lost."""
    (squares,) = found
    return squares, squares / FAR / FAR, squares * FAR * FAR
