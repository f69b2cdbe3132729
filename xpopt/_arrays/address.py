"""Where NumPy's arrays and Python's bytes are in memory; and NumPy's arrays in memory that is another object's."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np


def _address_field(x: Any) -> int:
    """Read the address from where NumPy keeps it, behind the object's head: a tenth of the cost of ``ctypes.data``."""
    return _word_at(id(x) + _HEAD).value


def _address(x: Any) -> int:
    return int(x.ctypes.data)


_HEAD = object.__basicsize__
_word_at = ctypes.c_size_t.from_address
_as_expected = sys.implementation.name == "cpython" and all(
    _address_field(x) == _address(x) for x in (np.empty(3), np.empty((2, 3))[:, 1:], np.empty(()))
)
address_of = _address_field if _as_expected else _address
"""Return where the data of a NumPy array begins."""


def _bytes_field(x: bytes) -> int:
    """Read the address from where CPython keeps bytes, in front of the zero that ends them."""
    return id(x) + bytes.__basicsize__ - 1


def _address_of_bytes(x: bytes) -> int:
    return address_of(np.frombuffer(x, np.uint8))


_bytes_as_expected = sys.implementation.name == "cpython" and _bytes_field(b"xpopt") == _address_of_bytes(b"xpopt")
address_of_bytes = _bytes_field if _bytes_as_expected else _address_of_bytes
"""Return where the data of a bytes object begins."""


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
