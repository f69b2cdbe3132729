"""The numbers of a step as bytes, in the order in which a kernel reads them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.typing import Scalars
from .._graph.node import Graph
from .._graph.rule import RateRows
from .._print.host import print_numbers, print_rows

Key = tuple[int, int]
"""What stochastic rounding draws from: two integers of 32 bits, signed."""

_CODES = "fd"  # of float32 and float64, to `struct` as to NumPy


class Numbers:
    """Evaluates what a graph needs beside its arrays.

    Parameters
    ----------
    *graphs : Graph
        The parts of the traced rule, whose numbers follow each other.
    """

    def __init__(self, *graphs: Graph) -> None:
        self.count = sum(len(graph.numbers()) for graph in graphs)
        self._graphs = graphs
        self._values, *others = map(print_numbers, graphs)
        if others:
            parts = self._values, *others
            self._values = lambda h: tuple(value for part in parts for value in part(h))
        self._pack = {code: struct.Struct(f"{self.count}{code}").pack for code in _CODES}
        # what computes and packs rows that differ in the rate, by how many there are
        self._of_rates: dict[str, dict[int, Any]] = {code: {} for code in _CODES}

    def rows(self, scalars: Sequence[Scalars], row_of: Sequence[int], keys: Sequence[Key] | None, code: str) -> bytes:
        """Return the numbers of a launch.

        Parameters
        ----------
        scalars : sequence of Scalars
            For each row.
        row_of : sequence of int
            The row of each tensor.
        keys : sequence of Key, or None
            Of each tensor, if parameters are rounded stochastically: then each has a row of its own, with its key as
            four more numbers.
        code : {"f", "d"}
            As for `packed`.

        Returns
        -------
        bytes
            One row after the other.
        """
        if keys is None and type(scalars) is RateRows and len(self._graphs) == 1:
            rates = scalars.rates
            made = self._of_rates[code].get(len(rates))
            if made is None:
                pack = struct.Struct(f"{len(rates) * self.count}{code}").pack
                made = self._of_rates[code][len(rates)] = print_rows(self._graphs[0], len(rates)), pack
            values, pack = made
            return _floats(pack, values(scalars.first, rates), code)
        if keys is None and len(scalars) == 1:
            return self.packed(scalars[0], code)
        packed = [self.packed(h, code) for h in scalars]
        if keys is not None:
            packed = [packed[row] + _halves(*key) for row, key in zip(row_of, keys, strict=True)]
        return b"".join(packed)

    def packed(self, h: Scalars, code: str) -> bytes:
        """Return the numbers, each rounded once from float64; a TypeError if one is not real.

        Parameters
        ----------
        h : Scalars
            What the rule reads.
        code : {"f", "d"}
            The ``char`` of the dtype to round to: float32 or float64.

        Returns
        -------
        bytes
            `count` floats.
        """
        return _floats(self._pack[code], self._values(h), code)


def _floats(pack: Callable[..., bytes], values: Sequence[Any], code: str) -> bytes:
    try:
        return pack(*values)
    except (OverflowError, struct.error):  # beyond float32, where NumPy rounds to infinity; or no real number
        with np.errstate(all="ignore"):
            return np.array(values, code).tobytes()


def clip_norms(scalars: Sequence[Scalars], row_of: Any) -> Any:
    """Return the largest norm of each tensor's gradient, in a launch that clips.

    Parameters
    ----------
    scalars : sequence of Scalars
        For each row.
    row_of : ndarray of int64, (tensors,)
        The row of each tensor.

    Returns
    -------
    float, or ndarray of float64, (tensors,)
        One number where there is one row.
    """
    if len(scalars) == 1:
        return scalars[0].clip_norm
    return np.array([h.clip_norm for h in scalars])[row_of]


def _halves(first: int, second: int) -> bytes:
    """Return a key as four floats, which are exact."""
    return struct.pack("4f", *(half for word in (first, second) for half in (word >> 16 & 0xFFFF, word & 0xFFFF)))
