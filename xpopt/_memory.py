"""Do two arrays share memory, or one with itself? Asked of addresses and strides; the values are never read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

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
    by_device: dict[tuple[str, str], list[tuple[int, int, Hashable, Any]]] = {}
    for name, x in arrays:
        library = library_of(x)
        assert library is not None
        layout = library.layout(x)
        if 0 not in layout[1]:
            shadow = np.asarray(_Shadow(layout))
            low, high = np.lib.array_utils.byte_bounds(shadow)
            by_device.setdefault((library.name, str(library.device(x))), []).append((low, high, name, shadow))
    for spans in by_device.values():
        spans.sort(key=lambda span: span[:2])
        open_spans: list[tuple[int, int, Hashable, Any]] = []
        for span in spans:
            open_spans = [other for other in open_spans if other[1] > span[0]]
            for other in open_spans:
                if _share(other[3], span[3]):
                    return other[2], span[2]
            open_spans.append(span)
    return None


def _share(a: Any, b: Any) -> bool:
    try:
        return bool(np.shares_memory(a, b, max_work=_EFFORT))  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True
