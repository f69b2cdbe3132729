"""The numbers of a step as bytes, in the order in which a kernel reads them."""

from __future__ import annotations

import struct

import numpy as np

from .._graph import Graph
from .._print import print_numbers
from .._typing import Scalars

_CODES = "fd"  # of float32 and float64, to `struct` as to NumPy


class Numbers:
    """Evaluates what a graph needs beside its arrays.

    Parameters
    ----------
    graph : Graph
        The traced rule.
    """

    def __init__(self, graph: Graph) -> None:
        self.count = len(graph.scalars())
        self._values = print_numbers(graph)
        self._pack = {code: struct.Struct(f"{self.count}{code}").pack for code in _CODES}

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
        values = self._values(h)
        try:
            return self._pack[code](*values)
        except (OverflowError, struct.error):  # beyond float32, where NumPy rounds to infinity; or no real number
            with np.errstate(all="ignore"):
                return np.array(values, code).tobytes()
