"""CuPy's arrays: on a device that is asynchronous, and that has to be the current one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..library import Layout
from ..typing import Array
from .dtypes import NumPyDtypes


class CuPy(NumPyDtypes):
    def is_lazy(self, x: Array) -> bool:
        return True

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        quiet = super().guard(function)

        def on_device(x: Array, *args: Any) -> Any:
            with x.device:  # type: ignore[attr-defined]
                return quiet(x, *args)

        return on_device

    def has_float64(self, x: Array) -> bool:
        return True

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        return self.guard(lambda like: super(CuPy, self).from_numpy(values, like))(like)

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        return (x.get() for x in xs)  # type: ignore[attr-defined]

    def _pairs(self, x: Array) -> Array:
        if not x.flags.c_contiguous:  # type: ignore[attr-defined]
            return super()._pairs(x)
        flat: Any = x.reshape(-1)  # type: ignore[attr-defined]
        pairs: Array = flat.view(np.dtype(f"f{flat.itemsize // 2}")).reshape(*x.shape, 2)
        return pairs

    def joined(self, pairs: Array) -> Array:
        flat: Any = self.xp.ascontiguousarray(pairs).reshape(-1)
        joined: Array = flat.view(np.dtype(f"c{flat.itemsize * 2}")).reshape(pairs.shape[:-1])
        return joined

    def memory(self, x: Array) -> str:
        return f"cuda:{x.device.id}"  # type: ignore[attr-defined]

    def may_share(self, x: Array, others: list[Array]) -> bool:
        return x.base is not None  # type: ignore[attr-defined]

    def is_same(self, x: Array, other: Array) -> bool:
        return x is other or self.layout(x) == self.layout(other)

    def writable(self, x: Array) -> bool:
        return True

    def layout(self, x: Array) -> Layout:
        return x.data.ptr, x.shape, x.strides, x.itemsize  # type: ignore[attr-defined]

    def bounds(self, x: Array) -> tuple[int, int]:
        if x.flags.c_contiguous:  # type: ignore[attr-defined]
            low = x.data.ptr  # type: ignore[attr-defined]
            return low, low + x.nbytes  # type: ignore[attr-defined]
        return super().bounds(x)
