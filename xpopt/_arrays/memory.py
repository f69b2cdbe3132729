"""Do two arrays share memory, or one with itself? Asked of addresses and strides; the values are never read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import itemgetter
from typing import Any

import numpy as np

from .library import Layout
from .namespace import library_of
from .typing import Array

_EFFORT: Any = 100_000  # NumPy's annotations know -1 and 0 alone
"""How much work the exact answer for two interleaved views may take before they count as shared."""


class _Shadow:
    """NumPy's view of memory at an address, on any device; never to be dereferenced."""

    def __init__(self, layout: Layout) -> None:
        address, shape, strides, itemsize = layout
        self.__array_interface__ = {
            "version": 3,
            "data": (address, True),
            "shape": shape,
            "strides": strides,
            "typestr": f"|V{itemsize}",
        }


def overlaps_itself(layout: Layout) -> bool:
    """Ask whether two elements of one array may lie in the same place.

    Parameters
    ----------
    layout : tuple
        Address, shape, strides in bytes and item size.

    Returns
    -------
    bool
        Exact for slices, transposes and broadcasts; an exotic layout of ``as_strided`` may be taken for overlapping.
    """
    _, shape, strides, itemsize = layout
    if 0 in shape:
        return False
    end = itemsize
    for step, count in sorted((abs(step), count) for step, count in zip(strides, shape, strict=True) if count > 1):
        if step < end:
            return True
        end += step * (count - 1)
    return False


def find_shared(arrays: Iterable[tuple[Hashable, Array]]) -> tuple[Hashable, Hashable] | None:
    """Return the names of two arrays that share memory, else None.

    Parameters
    ----------
    arrays : iterable of (name, array)
        The arrays, of any libraries and devices.

    Returns
    -------
    tuple or None
        The first pair found, or None if every byte belongs to at most one array.
    """
    by_memory: dict[str, list[tuple[int, int, Hashable, Array]]] = {}
    for name, x in arrays:
        library = library_of(x)
        assert library is not None
        low, high = library.bounds(x)
        if low < high:
            by_memory.setdefault(library.memory(x), []).append((low, high, name, x))
    for spans in by_memory.values():
        spans.sort(key=itemgetter(0))
        near: list[tuple[int, int, Hashable, Array]] = []
        for span in spans:
            near = [other for other in near if other[1] > span[0]]
            for other in near:
                if _share(other[3], span[3]):
                    return other[2], span[2]
            near.append(span)
    return None


def writes_cross_reads(
    works: Iterable[tuple[Array, tuple[Array, ...], Array | None]], written: Iterable[Array]
) -> bool:
    """Ask whether a result would go where another array is still to be read.

    Parameters
    ----------
    works : iterable of (param, others, out)
        Arrays of NumPy or CuPy: the parameter, what else is read with it, and where the result goes, which may be None
        for a new array, or `param` itself.
    written : iterable of array
        Where other results go, arrays of any library that share memory with no `out` here.

    Returns
    -------
    bool
        Whether something is written within the bounds of an array that is read, but for an `out` that is its own
        `param`. Interleaved views count too.
    """
    spans: list[tuple[int, int, bool]] = []
    for param, others, out in works:
        spans += [(*_bounds(x), False) for x in others]
        spans.append((*_bounds(param), out is param))
        if out is not None and out is not param:
            spans.append((*_bounds(out), True))
    spans += [(*_bounds(x), True) for x in written]
    spans.sort(key=itemgetter(0))
    any_end = written_end = 0
    for low, high, goes_there in spans:
        if low < (any_end if goes_there else written_end) and low < high:
            return True
        any_end = max(any_end, high)
        written_end = max(written_end, high if goes_there else 0)
    return False


def _bounds(x: Array) -> tuple[int, int]:
    library = library_of(x)
    assert library is not None
    return library.bounds(x)


def _share(a: Array, b: Array) -> bool:
    layouts = [library.layout(x) for x in (a, b) if (library := library_of(x)) is not None]
    first, second = (np.asarray(_Shadow(layout)) for layout in layouts)
    try:
        return bool(np.shares_memory(first, second, max_work=_EFFORT))
    except np.exceptions.TooHardError:
        return True
