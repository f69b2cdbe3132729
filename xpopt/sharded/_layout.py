"""Where parameters are in a flat array, and which part of it each rank updates."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import accumulate
from typing import NamedTuple

from .._arrays.sums import PIECE as BLOCK


class Piece(NamedTuple):
    """The part of a parameter that a rank updates."""

    at: int  # its first element in the parameter
    size: int  # its number of elements


class Section:
    """Parameters of one dtype in one flat array; each rank has a region of it.

    Parameters
    ----------
    sizes : mapping of hashable to int
        The number of elements of each parameter, by name.
    ranks : int
        The number of processes.
    cut : bool
        Whether parameters may be cut. If so, all regions have the same size, a multiple of `BLOCK`. If not, each
        parameter is in one region: from the largest on, each is assigned to the rank with the fewest elements.
    """

    def __init__(self, sizes: Mapping[Hashable, int], ranks: int, *, cut: bool) -> None:
        self.sizes, self.cut = sizes, cut
        if cut:
            blocks = -(-sum(sizes.values()) // BLOCK)
            size = -(-blocks // ranks) * BLOCK
            self.borders = [size * rank for rank in range(ranks + 1)]
            order = list(sizes)
        else:
            owners, loads = {}, [0] * ranks
            for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
                owners[name] = loads.index(min(loads))
                loads[owners[name]] += sizes[name]
            self.borders = [0, *accumulate(loads)]
            self.owners = owners
            order = sorted(sizes, key=owners.__getitem__)
        self.starts = dict(zip(order, accumulate((sizes[name] for name in order), initial=0), strict=False))

    @property
    def length(self) -> int:
        """The number of elements of the flat array."""
        return self.borders[-1]

    def region(self, rank: int) -> slice:
        """Return the part of the flat array that a rank updates."""
        return slice(self.borders[rank], self.borders[rank + 1])

    def owns(self, name: Hashable, rank: int) -> bool:
        """Return whether a rank keeps state of a parameter; rank 0 keeps that of one without elements."""
        if not self.cut:
            return self.owners[name] == rank
        return self.piece(name, rank).size > 0 or (self.sizes[name] == 0 and rank == 0)

    def piece(self, name: Hashable, rank: int) -> Piece:
        """Return the part of a parameter that a rank updates; it may be empty."""
        start, size = self.starts[name], self.sizes[name]
        if not self.cut:
            return Piece(0, size if self.owners[name] == rank else 0)
        low = max(start, self.borders[rank])
        high = min(start + size, self.borders[rank + 1])
        return Piece(low - start, high - low) if low < high else Piece(0, 0)
