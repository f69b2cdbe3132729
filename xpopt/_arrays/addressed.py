"""Arrays of NumPy in memory of which no more is known than where it is, and what keeps it."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np


class _Memory(ctypes.Array):  # type: ignore[type-arg]
    """All memory from an address on, and what owns the beginning of it."""

    __slots__ = ("owner",)
    _type_ = ctypes.c_char
    _length_ = sys.maxsize


def addressed(
    address: int, owner: Any, shape: tuple[int, ...], dtype: np.dtype[Any], strides: tuple[int, ...] | None
) -> np.ndarray[Any, Any]:
    """Return an array of NumPy in the memory of another object, to whom nothing is said of it.

    Parameters
    ----------
    address : int
        Where it begins.
    owner : object
        What keeps the memory as long as it lives itself: as long as the array does.
    shape : tuple of int
    dtype : numpy.dtype
    strides : tuple of int or None
        In bytes; None for the order of C.

    Returns
    -------
    ndarray
        The array, which can be written.
    """
    memory: Any = _Memory.from_address(address)
    memory.owner = owner
    return np.ndarray(shape, dtype, memory, 0, strides)
