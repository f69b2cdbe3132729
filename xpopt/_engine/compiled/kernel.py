"""The compiled engine: a rule as machine code for the CPU, all tensors of a model in one call."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..._arrays.norms import clip_factors
from ..._arrays.typing import Scalars
from ..._graph.ones import parts_of
from ..._graph.rule import Rule
from ..._print.numba import print_numba, print_squares
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
        graph = parts_of(rule, h, clipped=clipped).arrays
        self._clipped = clipped
        inexact = any(node.op in _INEXACT for node in graph.arrays())
        self.exact = not inexact and not clipped
        """Whether blocks make the same numbers, so that it does not matter which of the two runs."""
        self.dtype = dtype
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        self._numbers = Numbers(graph)
        rest = f"int64[::1], {self.compute}[:,::1], {self.compute}[:,::1]"
        dtypes = rule.dtypes(self.compute.name)
        source = print_numba(graph, dtype, drawn=drawn, slots=[dtypes[k] for k in rule.wide] if rule.narrow else ())
        self._call = build.build(source, "kernel", f"void({_INDICES}, {rest})")

    def prepare(
        self,
        table: Any,
        pieces: Any,
        rows: Any,
        scalars: Sequence[Scalars],
        keys: Keys,
        grads: Sequence[Any],
        ones: Any = None,
    ) -> Callable[[], None]:
        """Return a function that updates the tensors of one dtype; nothing in it can fail.

        Parameters
        ----------
        table : ndarray of int64, (roles, tensors)
            The addresses of param, grad, where the new param goes, and the slots.
        pieces : ndarray of int64, (pieces, 3)
            From `cut`.
        rows : ndarray of int64, (tensors,)
            Which of `scalars` each tensor uses.
        scalars : sequence of Scalars
            The numbers of the step for each row.
        keys : sequence of Key, or None
            What each tensor draws from, if that is how it is rounded.
        grads : sequence of ndarray
            The gradients.
        ones : ndarray, (tensors, numbers), or None
            Numbers of each tensor, if the rule makes some.

        Returns
        -------
        callable
            To be called while the arrays are alive.
        """
        helpers = min(pool.threads(), len(pieces)) - 1 if len(pieces) >= _FEW and pieces[:, 2].sum() > SERIAL else 0
        factors = _NO_FACTORS[self.compute]
        if self._clipped:
            factors = _factors(self, clip_norms(scalars, rows), table, pieces, grads, helpers)
        counter = np.zeros(1, np.int64)
        packed = self._numbers.rows(scalars, rows, keys, self.compute.char, ones)
        count, width = len(scalars), self._numbers.count
        if keys is not None or ones is not None:
            count = len(rows)
            rows = np.arange(count)
            width += (0 if keys is None else 4) + (0 if ones is None else ones.shape[1])
        numbers: Any = np.ndarray((count, width), self.compute, bytearray(packed))
        call = functools.partial(self._call, table, pieces, counter, rows, numbers, factors)
        return functools.partial(pool.run, call, helpers) if helpers else call


_NO_FACTORS = {np.dtype(dtype): np.ones((2, 0), dtype) for dtype in ("float32", "float64")}


def cut(sizes: tuple[int, ...]) -> Any:
    """Cut tensors into pieces.

    Parameters
    ----------
    sizes : tuple of int
        The number of elements of each.

    Returns
    -------
    ndarray of int64, (pieces, 3)
        The tensor, the first element and the number of elements of each piece.
    """
    return _cut_one(sizes[0]) if len(sizes) == 1 else _cut(sizes)


def _cut(sizes: tuple[int, ...]) -> Any:
    of_each = np.array(sizes, np.int64)
    counts = -(-of_each // PIECE)
    tensor = np.repeat(np.arange(len(of_each)), counts)
    start = (np.arange(len(tensor)) - (np.cumsum(counts) - counts)[tensor]) * PIECE
    return np.stack([tensor, start, np.minimum(of_each[tensor] - start, PIECE)], axis=1)


@functools.lru_cache(256)
def _cut_one(size: int) -> Any:
    return _cut((size,))


@functools.cache
def _squares(dtype: str) -> Callable[..., None]:
    return build.build(print_squares(dtype), "squares", f"void({_INDICES}, float64[::1])")


def _factors(of: Kernel, largest: Any, table: Any, pieces: Any, grads: Sequence[Any], helpers: int) -> Any:
    """Return the numbers that bring the norms down to the `largest`; every sum is taken in one order."""
    sums = np.empty(len(pieces))
    pool.run(functools.partial(_squares(of.dtype), table, pieces, np.zeros(1, np.int64), sums), helpers)
    return clip_factors(np.bincount(pieces[:, 0], sums, len(grads)), largest, grads)
