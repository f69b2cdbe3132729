"""Do two arrays share memory, or one with itself? Asked of addresses and strides; the values are never read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import itemgetter

import numpy as np

from ._namespace import library_of
from ._typing import Array

Layout = tuple[int, tuple[int, ...], tuple[int, ...], int]

_EFFORT = 100_000
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
    by_device: dict[tuple[str, str], list[tuple[int, int, Hashable, Layout]]] = {}
    for name, x in arrays:
        library = library_of(x)
        assert library is not None
        layout = library.layout(x)
        if 0 not in layout[1]:
            spans = by_device.setdefault((library.name, str(library.device(x))), [])
            spans.append((*_bounds(layout), name, layout))
    for spans in by_device.values():
        spans.sort(key=itemgetter(0))
        near: list[tuple[int, int, Hashable, Layout]] = []
        for span in spans:
            near = [other for other in near if other[1] > span[0]]
            for other in near:
                if _share(other[3], span[3]):
                    return other[2], span[2]
            near.append(span)
    return None


def _bounds(layout: Layout) -> tuple[int, int]:
    """Return the first address of an array, and the one after its last."""
    low, shape, strides, itemsize = layout
    high = low + itemsize
    for count, step in zip(shape, strides, strict=True):
        if step < 0:
            low += (count - 1) * step
        else:
            high += (count - 1) * step
    return low, high


def _share(a: Layout, b: Layout) -> bool:
    try:
        shadows = np.asarray(_Shadow(a)), np.asarray(_Shadow(b))
        return bool(np.shares_memory(*shadows, max_work=_EFFORT))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
