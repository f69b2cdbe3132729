"""NumPy's arrays, of which much can be asked for less than the standard's functions take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..address import address_of
from ..library import Layout, joined_in_numpy, pairs_in_numpy
from ..reducing import reducing
from ..typing import Array, Namespace
from .dtypes import NumPyDtypes


class NumPy(NumPyDtypes):
    def __init__(self, name: str, xp: Namespace) -> None:
        super().__init__(name, xp)
        self.of_rules = reducing(xp)

    def device(self, x: Array) -> Any:
        return "cpu"

    def has_float64(self, x: Array) -> bool:
        return True

    def admit(self, x: Any) -> Array:
        if type(x) is np.ndarray:
            return x
        if isinstance(x, np.memmap):
            return x.view(np.ndarray)
        raise TypeError(
            f"is a {type(x).__module__}.{type(x).__qualname__}, whose arithmetic is not a plain array's; "
            f"pass numpy.asarray(x)"
        )

    def values(self, x: Any) -> Any:
        if type(x) is np.ndarray or not isinstance(x, np.ndarray) or not _computes_as_ndarray(type(x)):
            return x
        return np.asarray(x)

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        return xs

    def _pairs(self, x: Array) -> Array:
        pairs: Array = pairs_in_numpy(x)
        return pairs

    def joined(self, pairs: Array) -> Array:
        joined: Array = joined_in_numpy(pairs)
        return joined

    def may_share(self, x: Array, others: list[Array]) -> bool:
        return x.base is not None  # type: ignore[attr-defined]

    def is_same(self, x: Array, other: Array) -> bool:
        return x is other or (address_of(x) == address_of(other) and x.strides == other.strides)  # type: ignore[attr-defined]

    def writable(self, x: Array) -> bool:
        return bool(x.flags.writeable)  # type: ignore[attr-defined]

    def layout(self, x: Array) -> Layout:
        return address_of(x), x.shape, x.strides, x.itemsize  # type: ignore[attr-defined]

    def bounds(self, x: Array) -> tuple[int, int]:
        if x.flags.c_contiguous:  # type: ignore[attr-defined]
            low = address_of(x)
            return low, low + x.nbytes  # type: ignore[attr-defined]
        return super().bounds(x)


def _computes_as_ndarray(kind: type) -> bool:
    """Whether a subclass of ndarray leaves arithmetic alone, as memmap does, and matrices and masked arrays do not."""
    return all(
        getattr(kind, name) is getattr(np.ndarray, name)
        for name in ("__array_ufunc__", "__array_function__", "__mul__")
    )
