"""Do two arrays share memory, or one with itself? Asked of addresses and strides; the values are never read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from operator import itemgetter

import numpy as np

from ._library import Layout
from ._namespace import library_of
from ._typing import Array

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
    by_device: dict[tuple[str, str], list[tuple[int, int, Hashable, Array]]] = {}
    for name, x in arrays:
        library = library_of(x)
        assert library is not None
        low, high = library.bounds(x)
        if low < high:
            by_device.setdefault((library.name, str(library.device(x))), []).append((low, high, name, x))
    for spans in by_device.values():
        spans.sort(key=itemgetter(0))
        near: list[tuple[int, int, Hashable, Array]] = []
        for span in spans:
            near = [other for other in near if other[1] > span[0]]
            for other in near:
                if _share(other[3], span[3]):
                    return other[2], span[2]
            near.append(span)
    return None


def writes_cross_reads(works: Iterable[tuple[Array, tuple[Array, ...], Array | None]]) -> bool:
    """Ask whether a result would go where another array is still to be read.

    Parameters
    ----------
    works : iterable of (param, others, out)
        Arrays of NumPy or CuPy: the parameter, what else is read with it, and where the result goes, which may be None
        for a new array, or `param` itself.

    Returns
    -------
    bool
        Whether some `out` lies within the bounds of another array than its own `param`. Interleaved views count too.
    """
    spans: list[tuple[int, int, bool]] = []
    for param, others, out in works:
        library = library_of(param)
        assert library is not None
        spans += [(*library.bounds(x), False) for x in others]
        spans.append((*library.bounds(param), out is param))
        if out is not None and out is not param:
            spans.append((*library.bounds(out), True))
    spans.sort(key=itemgetter(0))
    any_end = written_end = 0
    for low, high, written in spans:
        if low < (any_end if written else written_end) and low < high:
            return True
        any_end = max(any_end, high)
        written_end = max(written_end, high if written else 0)
    return False


def _share(a: Array, b: Array) -> bool:
    layouts = [library.layout(x) for x in (a, b) if (library := library_of(x)) is not None]
    first, second = (np.asarray(_Shadow(layout)) for layout in layouts)
    try:
        return bool(np.shares_memory(first, second, max_work=_EFFORT))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
