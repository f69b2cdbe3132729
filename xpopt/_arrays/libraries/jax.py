"""JAX's arrays, which cannot be written, and may be traced, or spread over devices by a sharding."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..typing import Array, Namespace
from .dtypes import Immutable


class JAX(Immutable):
    def __init__(self, name: str, xp: Namespace) -> None:
        super().__init__(name, xp)
        self._places: dict[tuple[Any, int], str] = {}

    def place(self, x: Array) -> str:
        sharding = self.device(x)
        if not _is_sharding(sharding):
            return str(sharding)
        here = sharding, len(x.shape)
        if here not in self._places:
            known = [(one, text) for (one, ndim), text in list(self._places.items()) if ndim == here[1]]
            same = (text for one, text in known if one.is_equivalent_to(*here))
            self._places[here] = next(same, str(sharding))
        return self._places[here]

    def arange(self, size: int, like: Array) -> Array:
        device = self.device(like)
        return self.xp.arange(size, dtype=self.xp.int32, device=None if _is_sharding(device) else device)

    def full(self, shape: tuple[int, ...], value: complex, dtype: Any, like: Array) -> Array:
        if shape == like.shape:
            return super().full(shape, value, dtype, like)
        return self.xp.full(shape, value, dtype, device=self._device_for(shape, like))

    def _device_for(self, shape: tuple[int, ...], like: Array) -> Any:
        """Return where an array of a shape goes, to be computed with `like`: of another shape, it is on each device."""
        device = self.device(like)
        if shape != like.shape and _is_sharding(device) and hasattr(device, "mesh"):
            sharding = sys.modules["jax"].sharding
            device = sharding.NamedSharding(device.mesh, sharding.PartitionSpec())
        return device

    def is_spread(self, x: Array) -> bool:
        return _is_sharding(self.device(x))

    def joined(self, pairs: Array) -> Array:
        joined: Array = sys.modules["jax"].lax.complex(pairs[..., 0], pairs[..., 1])  # type: ignore[index]
        return joined

    def result(self, x: Array, param: Array) -> Array:
        if param.weak_type and not x.weak_type:  # type: ignore[attr-defined]
            full_like = self.xp.full_like  # which alone makes a weak type of another one, of numbers
            for _ in x.shape:
                full_like = sys.modules["jax"].vmap(full_like)
            x = full_like(param, x)
        return x

    def copy(self, x: Array) -> Array:
        return self.xp.array(x, copy=True)  # the caller may donate the original

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        values = values.astype(like.dtype)
        if self.is_traced(like):  # it is for the compiler to place it
            return self.xp.asarray(values)
        jax, device = sys.modules["jax"], self._device_for(values.shape, like)
        made: Array
        if _is_sharding(device) and not device.is_fully_addressable:  # each process has all values, and puts its own
            made = jax.make_array_from_callback(values.shape, device, values.__getitem__)
        else:  # not asarray, which cannot lay out what is on explicit axes of a mesh
            made = jax.device_put(values, device)
        return made

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        return map(_whole, xs)

    def is_traced(self, x: Array) -> bool:
        return isinstance(x, sys.modules["jax"].core.Tracer)

    def admit(self, x: Any) -> Array:
        if self.is_traced(x):
            raise TypeError(
                "is a JAX tracer, which cannot be kept in the cache; call update outside jax.jit, or "
                "take the pure form, opt.pure()"
            )
        return x


def _is_sharding(device: Any) -> bool:
    return hasattr(device, "is_equivalent_to")


def _whole(x: Any) -> Any:
    """Return the values of a JAX array on the host, of which other processes may have some: all of them then ask."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return importlib.import_module("jax.experimental.multihost_utils").process_allgather(x, tiled=True)
