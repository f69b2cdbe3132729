"""The compiled engine: a rule as machine code for the CPU, all tensors of a model in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._arrays import sums
from ..._arrays.norms import clip_factors
from ..._arrays.typing import Scalars
from ..._graph.node import Graph, Node
from ..._graph.passes import passes_of
from ..._graph.rule import Rule
from ..._print.numba import Accumulated, accumulated, print_measure, print_numba
from .. import pool
from ..group import Keys
from ..kernel import Variant
from ..numbers import Numbers, clip_norms
from . import build

WORTH = 65_536
"""Elements in one call from which a kernel is worth its compilation; one that is there runs everything."""

SERIAL = 524_288
"""Elements in one call up to which other threads would come too late to help."""

PIECE = 16_384
"""Elements that a thread takes at a time."""

_FEW = SERIAL // PIECE

_INEXACT = {"exp", "log", "pow"}
"""The operations of which NumPy and LLVM have functions of their own."""

_INDICES = "int64[:,::1], int64[:,::1], int64[::1]"


class Kernel:
    """A rule compiled for one dtype.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step.
    variant : Variant
        What it is made for.
    """

    def __init__(self, rule: Rule, h: Scalars, variant: Variant) -> None:
        _, dtype, clipped, drawn, _ = variant
        passes = passes_of(rule, h, clipped=clipped)
        graph = passes.last.arrays
        self.clipped = clipped
        graphs = [*(one.parts.arrays for one in passes.before), graph]
        self.exact = not any(node.op in _INEXACT for of in graphs for node in of.arrays())
        """Whether blocks make the same numbers, so that it does not matter which of the two runs."""
        self.dtype = dtype
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        self.numbers = Numbers(graph)
        dtypes = rule.dtypes(self.compute.name)
        slots = [dtypes[k] for k in rule.wide] if rule.narrow else ()
        source = print_numba(graph, dtype, drawn=drawn, slots=slots)
        self.call = build.build(source, "kernel", f"void({_INDICES}, {_rest(self.compute)})")
        self.measures = [Measure(one.parts.arrays, accumulated(one, dtype), dtype, slots) for one in passes.before]


class Launch:
    """One update of the tensors of one dtype.

    Parameters
    ----------
    kernel : Kernel
        That of their rule.
    table : ndarray of int64, (roles, tensors)
        The addresses of param, grad, where the new param goes, and the slots.
    of : Cut
        The tensors in pieces.
    rows : ndarray of int64, (tensors,)
        Which of `scalars` each tensor uses.
    scalars : sequence of Scalars
        The numbers of the step for each row.
    keys : sequence of Key, or None
        What each tensor draws from, if that is how it is rounded.
    grads : sequence of ndarray
        The gradients.
    """

    def __init__(
        self, kernel: Kernel, table: Any, of: Cut, rows: Any, scalars: Sequence[Scalars], keys: Keys, grads: Any
    ) -> None:
        pieces = of.pieces
        self._kernel = kernel
        self._table, self._cut, self._rows = table, of, rows
        self._scalars, self._keys = scalars, keys
        shared = len(pieces) >= _FEW and pieces[:, 2].sum() > SERIAL
        self._helpers = min(pool.threads(), len(pieces)) - 1 if shared else 0
        self._factors = _NO_FACTORS[kernel.compute]
        if kernel.clipped:
            rest = rows, _NO_NUMBERS[kernel.compute], self._factors
            (squares,) = _squares(kernel.dtype).run(table, of, *rest, self._helpers)
            self._factors = clip_factors(squares, clip_norms(scalars, rows), grads)

    def measure(self, k: int, ones: Any) -> list[Any]:
        """Return all that pass `k` finds, of each tensor."""
        one = self._kernel.measures[k]
        rows, numbers = self._numbers(one.numbers, None, ones)
        return one.run(self._table, self._cut, rows, numbers, self._factors, self._helpers)

    def prepare(self, ones: Any = None) -> Callable[[], None]:
        """Return a function that updates the tensors; nothing in it can fail.

        Parameters
        ----------
        ones : ndarray, (tensors, numbers), or None
            Numbers of each tensor, if the rule makes some.

        Returns
        -------
        callable
            To be called while the arrays are alive.
        """
        rows, numbers = self._numbers(self._kernel.numbers, self._keys, ones)
        counter = np.zeros(1, np.int64)
        call = functools.partial(
            self._kernel.call, self._table, self._cut.pieces, counter, rows, numbers, self._factors
        )
        return functools.partial(pool.run, call, self._helpers) if self._helpers else call

    def _numbers(self, numbers: Numbers, keys: Keys, ones: Any) -> tuple[Any, Any]:
        """Return the row of numbers of each tensor, and the rows."""
        compute, rows = self._kernel.compute, self._rows
        packed = numbers.rows(self._scalars, rows, keys, compute.char)
        count, width = len(self._scalars), numbers.count
        if keys is not None:
            count, width, rows = len(rows), width + 4, np.arange(len(rows))
        found: Any = np.ndarray((count, width), compute, bytearray(packed))
        if ones is not None:  # of each tensor: behind those of the step, and in front of a key
            found = np.concatenate([found[rows, : numbers.count], ones, found[rows, numbers.count :]], axis=1)
            rows = np.arange(len(rows))
        return rows, found


def _rest(compute: Any) -> str:
    return f"int64[::1], {compute}[:,::1], {compute}[:,::1]"


class Measure:
    """What is found of whole tensors of one dtype, compiled.

    Parameters
    ----------
    graph : Graph
        What to compute of each element.
    found : sequence of Accumulated
        What is found of that.
    dtype : str
        The tensors' dtype.
    slots : sequence of str
        As for `print_measure`.
    """

    def __init__(self, graph: Graph, found: Sequence[Accumulated], dtype: str, slots: Sequence[str] = ()) -> None:
        compute = "float64" if dtype == "float64" else "float32"
        self.numbers = Numbers(graph)
        self._found = found
        source = print_measure(graph, found, dtype, slots=slots)
        types = f"void({_INDICES}, {_rest(compute)}, int64[::1], float64[:,::1])"
        self._call = build.build(source, "measure", types)

    def run(self, table: Any, of: Cut, rows: Any, numbers: Any, factors: Any, helpers: int) -> list[Any]:
        """Return what all is found, of each tensor; any number of threads finds the same."""
        of_pieces = np.empty((len(self._found), of.sums))
        call = functools.partial(self._call, table, of.pieces, np.zeros(1, np.int64), rows, numbers, factors)
        pool.run(functools.partial(call, of.firsts, of_pieces), helpers)
        return [sums.totals(x, of.counts, one.way) for x, one in zip(of_pieces, self._found, strict=True)]


_NO_NUMBERS = {np.dtype(dtype): np.ones((1, 0), dtype) for dtype in ("float32", "float64")}
_NO_FACTORS = {np.dtype(dtype): np.ones((2, 0), dtype) for dtype in ("float32", "float64")}


class Cut(NamedTuple):
    """Tensors in pieces, which threads take, and in those that are summed up.

    Parameters
    ----------
    pieces : ndarray of int64, (pieces, 3)
        The tensor, the first element and the number of elements of each piece.
    counts : ndarray of int64, (tensors,)
        How many pieces of `sums.PIECE` each tensor has.
    firsts : ndarray of int64, (tensors,)
        How many of these come before its own.
    sums : int
        How many there are.
    """

    pieces: Any
    counts: Any
    firsts: Any
    sums: int


def cut(sizes: tuple[int, ...]) -> Cut:
    """Cut tensors into pieces.

    Parameters
    ----------
    sizes : tuple of int
        The number of elements of each.

    Returns
    -------
    Cut
        The pieces.
    """
    return _cut_one(sizes[0]) if len(sizes) == 1 else _cut(sizes)


def _cut(sizes: tuple[int, ...]) -> Cut:
    of_each = np.array(sizes, np.int64)
    counts = -(-of_each // PIECE)
    tensor = np.repeat(np.arange(len(of_each)), counts)
    start = (np.arange(len(tensor)) - (np.cumsum(counts) - counts)[tensor]) * PIECE
    pieces = np.stack([tensor, start, np.minimum(of_each[tensor] - start, PIECE)], axis=1)
    summed = -(-of_each // sums.PIECE)
    return Cut(pieces, summed, np.cumsum(summed) - summed, int(summed.sum()))


@functools.lru_cache(256)
def _cut_one(size: int) -> Cut:
    return _cut((size,))


@functools.cache
def _squares(dtype: str) -> Measure:
    """Return what sums the squares of gradients."""
    inputs = tuple(Node("input", "array", value=name) for name in ("param", "grad"))
    return Measure(Graph("a gradient", inputs, inputs[1:]), [Accumulated(0, sums.SQUARES)], dtype)
