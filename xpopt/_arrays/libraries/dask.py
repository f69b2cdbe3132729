"""Dask's arrays, which are graphs of what is still to be computed, in chunks."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..library import PAIRS, joined_in_numpy, pairs_in_numpy
from ..typing import Array
from .dtypes import Immutable


class Dask(Immutable):
    deferred = True

    def pieces(self, x: Array, like: Array) -> Array:
        chunks = _chunks(x.shape, like)
        return x if x.chunks == chunks else x.rechunk(chunks)  # type: ignore[attr-defined]

    def full(self, shape: tuple[int, ...], value: complex, dtype: Any, like: Array) -> Array:
        return self.xp.full(shape, value, dtype=dtype, chunks=_chunks(shape, like))

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        # an entry of the graph for each chunk, which travels alone; nothing is hashed for a name
        chunks = _chunks(values.shape, like)
        array: Array = self.xp.from_array(values.astype(like.dtype), chunks=chunks, name=False)
        return array

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        return sys.modules["dask"].compute(*xs)  # together, for they have much of their graphs in common

    def _pairs(self, x: Array) -> Array:
        whole: Any = x
        dtype, chunks = np.dtype(PAIRS[whole.dtype.name]), (*whole.chunks, (2,))
        pairs: Array = whole.map_blocks(pairs_in_numpy, dtype=dtype, chunks=chunks, new_axis=whole.ndim)
        return pairs

    def joined(self, pairs: Array) -> Array:
        parts: Any = pairs
        parts = parts.rechunk({-1: -1})
        dtype = np.dtype(f"c{parts.dtype.itemsize * 2}")
        joined: Array = parts.map_blocks(joined_in_numpy, dtype=dtype, drop_axis=parts.ndim - 1)
        return joined

    def copy(self, x: Array) -> Array:
        return x

    def has_float64(self, x: Array) -> bool:
        return True


def _chunks(shape: tuple[int, ...], like: Any) -> Any:
    """Return the chunks in which an array is computed with `like`; those of one size are cut alike."""
    if len(shape) != len(like.shape):
        return "auto" if shape else ()
    sizes = zip(shape, like.shape, like.chunks, strict=True)
    return tuple(chunks if size == whole else (size,) for size, whole, chunks in sizes)
