"""The numbers of a step: which parameters share them, where each is among all, and as a library takes them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import Library, real_of
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array
from .._state.settings import Settings
from .called import Called
from .formula import Formula
from .leaf import Leaf


class Row(NamedTuple):
    """Numbers that some parameters share: they have one rule, one group and one count."""

    settings: Settings
    formula: Formula | Called
    t: int  # when the pure form began
    start: int  # where they are among all


def row_key(leaf: Leaf) -> Any:
    """Return what a parameter has in common with those that share its numbers."""
    return leaf.settings.number, leaf.rule, leaf.t


def rows_of(leaves: Mapping[Hashable, Leaf]) -> dict[Any, Row]:
    """Return the numbers of all parameters, one after the other."""
    rows: dict[Any, Row] = {}
    start = 0
    for leaf in leaves.values():
        if leaf.formula is not None and row_key(leaf) not in rows:
            rows[row_key(leaf)] = Row(leaf.settings, leaf.formula, leaf.t, start)
            start += leaf.formula.count
    return rows


class Given:
    """The numbers of a step as a library computes with them.

    Parameters
    ----------
    library : Library
        The library.
    like : array
        Where they are to be.
    numbers : mapping
        What came.
    rows : mapping
        Where they are among all.
    """

    def __init__(self, library: Library, like: Array, numbers: Any, rows: Mapping[Any, Row]) -> None:
        self.library, self._like, self._rows = library, like, rows
        count = sum(row.formula.count for row in rows.values())
        self._values = self._taken(numbers, "values", (count,))
        self._numbers = numbers
        self._made: dict[Any, tuple[list[Any], Any]] = {}

    def _taken(self, numbers: Any, name: str, shape: tuple[int, ...]) -> Any:
        x: Any = numbers.get(name) if isinstance(numbers, Mapping) else None
        if x is None or tuple(getattr(x, "shape", ())) != shape:
            came = f"{name} of shape {tuple(x.shape)}" if hasattr(x, "shape") else f"a {type(numbers).__name__}"
            raise ValueError(f"numbers holds {came}; wanted what pure.numbers() returns, {name} of shape {shape}")
        return x

    def of(self, key: Any, leaf: Leaf) -> tuple[list[Any], Any]:
        """Return the numbers of a parameter, and the largest norm of its gradient."""
        row, library, xp = self._rows[key], self.library, self.library.xp
        if key not in self._made:
            clips = row.formula.clips
            places = range(row.start, row.start + row.formula.count)
            if isinstance(self._values, np.ndarray):
                values = [float(self._values[k]) for k in places]
            else:
                dtype = library.dtype(real_of(dtype_text(leaf.spec.compute)))
                values = [xp.astype(self._values[k], dtype, copy=False) for k in places]
                if clips:
                    wide = xp.float64 if library.has_float64(self._like) else xp.float32
                    values[-1] = xp.astype(self._values[places[-1]], wide, copy=False)
            self._made[key] = (values[:-1], values[-1]) if clips else (values, None)
        return self._made[key]

    def key(self, k: int) -> Any:
        """Return what the k-th of the parameters that are rounded stochastically draws from."""
        keys = self._numbers["keys"]
        return tuple(keys[k].tolist()) if isinstance(keys, np.ndarray) else (keys[k, 0], keys[k, 1])
