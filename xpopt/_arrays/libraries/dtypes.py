"""Libraries whose dtypes are NumPy's, and those of them whose arrays cannot be written."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..library import LOW, PAIRS, SUPPORTED, Library
from ..typing import Array

_NAMES = (*SUPPORTED, *PAIRS)


class NumPyDtypes(Library):
    """A library whose dtypes are NumPy's."""

    def dtype_name(self, dtype: Any) -> str | None:
        name = self._dtype_names.get(dtype)
        if name is None and getattr(dtype, "isnative", False) and dtype.name in _NAMES:  # a JAX key has none
            name = self._dtype_names[dtype] = dtype.name
        return name

    def dtype(self, name: str) -> Any:
        if name != "bfloat16":
            return np.dtype(name)
        try:
            return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
        except ImportError:
            raise TypeError(f"{self.name} has bfloat16 only with ml_dtypes: pip install ml_dtypes") from None

    def compute_dtype(self, dtype: Any) -> Any:
        return np.dtype(np.float32) if self.dtype_name(dtype) in LOW else dtype

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        return self.xp.asarray(values.astype(like.dtype, order=order_of(like)))


def order_of(x: Any) -> Any:
    """Return the order in which an array of NumPy or CuPy lies, which engines that fuse want of all that go with it."""
    return "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"


class Immutable(NumPyDtypes):
    mutable = False

    def is_lazy(self, x: Array) -> bool:
        return True

    def may_share(self, x: Array, others: list[Array]) -> bool:
        return False
