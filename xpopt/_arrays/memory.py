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


def _share(a: Array, b: Array) -> bool:
    layouts = [library.layout(x) for x in (a, b) if (library := library_of(x)) is not None]
    first, second = (np.asarray(_Shadow(layout)) for layout in layouts)
    try:
        return bool(np.shares_memory(first, second, max_work=_EFFORT))
    except np.exceptions.TooHardError:
        return True
