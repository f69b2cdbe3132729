"""Sum gradients over all ranks: each rank gets the sum for its region of a flat array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._arrays.library import LOW
from .._arrays.parameter import dtype_text
from ._processes import Processes

_BLOCK = 65_536
"""Elements summed at a time, so that they stay in the processor's cache."""


class Gradients:
    """The flat array of gradients of a section, and the sum over ranks for the region of this rank.

    Parameters
    ----------
    processes : Processes
        All ranks.
    borders : sequence of int
        The first elements of the regions, and the end of the last.
    like : array
        The flat array of parameters.
    wide : dtype
        float32, in which 16-bit gradients are summed.
    mean : bool
        Whether the sum is divided by the number of ranks.
    by_rank : bool
        Whether to sum in the order of the ranks.
    """

    def __init__(
        self, processes: Processes, borders: Sequence[int], like: Any, wide: Any, *, mean: bool, by_rank: bool
    ) -> None:
        self._processes, self._borders, self._mean = processes, borders, mean
        zeros, rank = processes.zeros, processes.rank
        count = borders[rank + 1] - borders[rank]
        self.flat = zeros(borders[-1], like.dtype, like)
        self._received = None
        if processes.size == 1:
            self.own = self.flat
            return
        in_order = by_rank or not processes.can_reduce(self.flat, borders)
        dtype = wide if in_order and dtype_text(like.dtype) in LOW else like.dtype
        self.own = zeros(count, dtype, like)
        if in_order:
            self._received = zeros(count * processes.size, like.dtype, like)

    def reduce(self) -> None:
        """Write the sum into `own`."""
        ranks = self._processes.size
        if ranks == 1 or not self._borders[-1]:
            return
        if self._received is None:
            self._processes.reduce(self.flat, self.own, self._borders)
            if self._mean:
                self.own /= ranks
            return
        self._processes.exchange(self.flat, self._received, self._borders)
        rows = self._received.reshape(ranks, len(self.own))
        for start in range(0, len(self.own), _BLOCK):
            block = slice(start, start + _BLOCK)
            total = self.own[block]
            total[...] = rows[0, block]
            for rank in range(1, ranks):
                total += rows[rank, block]
            if self._mean:
                total /= ranks
