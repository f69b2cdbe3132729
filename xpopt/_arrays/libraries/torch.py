"""PyTorch's tensors, which record gradients, and whose memory NumPy sees if they are on the host."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from ..address import addressed
from ..library import PAIRS, SUPPORTED, Layout, Library
from ..typing import Array


@functools.cache
def _dtypes_of_torch() -> dict[Any, Any]:
    """Return NumPy's dtypes by those of torch."""
    torch = sys.modules["torch"]
    found = {getattr(torch, name): np.dtype(name) for name in (*SUPPORTED, *PAIRS) if name != "bfloat16"}
    return found if _bfloat16() is None else {**found, torch.bfloat16: _bfloat16()}


@functools.cache
def _bfloat16() -> Any:
    """Return NumPy's dtype of that name, which comes from elsewhere; None where it is not installed."""
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        return None


def _steps(x: Any) -> tuple[int, ...]:
    """Return the strides of a tensor in bytes."""
    size = x.element_size()
    return tuple([step * size for step in x.stride()])


class Torch(Library):
    def is_lazy(self, x: Array) -> bool:
        return x.device.type != "cpu"  # type: ignore[attr-defined]

    def admit(self, x: Any) -> Array:
        if hasattr(type(x), "to_local"):
            raise TypeError(
                f"is a {type(x).__name__}, which lies on several processes; wrap the optimizer, "
                f"xpopt.sharded.DTensors(opt, params), and call the update_all of that"
            )
        if str(x.layout) != "torch.strided":
            raise TypeError(f"has the layout {x.layout}; pass a dense tensor, x.to_dense()")
        return x.detach()

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        guarded: Callable[..., Any] = sys.modules["torch"].no_grad()(super().guard(function))
        return guarded

    def guard_recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return super().guard(function)

    def is_traced(self, x: Array) -> bool:
        functorch: Any = sys.modules["torch"]._C._functorch
        return bool(functorch.is_functorch_wrapped_tensor(x))

    def memory(self, x: Array) -> str:
        return "host" if x.device.type == "cpu" else str(x.device)  # type: ignore[attr-defined]

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        if values.dtype.name == "bfloat16":  # of which it knows nothing
            values = values.astype(np.float32)
        # not torch.asarray, which refuses to convert arrays of shape ()
        return self.xp.tensor(values, dtype=like.dtype, device=self.device(like))

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        torch = sys.modules["torch"]
        for x in xs:
            host: Any = x.detach().cpu().resolve_conj()  # type: ignore[attr-defined]
            if host.dtype == torch.bfloat16:  # which NumPy has from elsewhere
                dtype = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
                yield host.contiguous().view(torch.int16).numpy().view(dtype)
            else:
                yield host.numpy()

    def on_host(self, x: Any, lasting: bool = False) -> Any:
        torch = sys.modules["torch"]
        if (type(x) is not torch.Tensor and type(x) is not torch.nn.Parameter) or not x.is_cpu:
            return None
        dtype = _dtypes_of_torch().get(x.dtype)
        try:
            if dtype is None or x.is_neg() or x.is_conj():  # which are still to be done
                return None
            address, storage = x.data_ptr(), x.untyped_storage()
            if not address and x.numel():
                return None
            strides = None if x.is_contiguous() else _steps(x)
            if lasting:  # torch then refuses to resize the storage
                torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
            # Tensor.numpy would say so of what is not ours
            return addressed(address, storage if lasting else None, x.shape, dtype, strides)
        except RuntimeError:  # one without a storage: sparse, nested, or in a transform of torch.func
            return None

    def looks(self, xs: list[Any]) -> Any:
        try:
            looks = [(type(x), x.data_ptr(), x.shape, x.dtype, x.stride(), x.is_cpu, x.is_neg()) for x in xs]
            return (looks, [x.is_conj() for x in xs]) if xs[0].is_complex() else looks
        except (AttributeError, RuntimeError):  # no tensor; or as in `on_host`
            return None

    def from_host(self, x: np.ndarray[Any, Any]) -> Array:
        torch = sys.modules["torch"]
        if x.dtype is _bfloat16():
            low: Array = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
            return low
        tensor: Array = torch.from_numpy(x)
        return tensor

    def note_written(self, xs: Iterable[Array]) -> None:
        increment = sys.modules["torch"].autograd.graph.increment_version  # so that a graph that has kept one says so
        try:
            increment(xs)
        except (TypeError, RuntimeError):  # older ones take one at a time, and none of inference mode
            for x in xs:
                with suppress(RuntimeError):
                    increment(x)

    def _pairs(self, x: Array) -> Array:
        pairs: Array = sys.modules["torch"].view_as_real(x.resolve_conj())  # type: ignore[attr-defined]
        return pairs

    def joined(self, pairs: Array) -> Array:
        joined: Array = sys.modules["torch"].view_as_complex(pairs.contiguous())  # type: ignore[attr-defined]
        return joined

    def copy(self, x: Array) -> Array:
        return x.detach().clone()  # type: ignore[attr-defined]

    def may_share(self, x: Array, others: list[Array]) -> bool:
        def storage(tensor: Any) -> int:
            return tensor.untyped_storage().data_ptr()

        return storage(x) in map(storage, others) or 0 in x.stride()  # type: ignore[attr-defined]

    def is_same(self, x: Array, other: Array) -> bool:
        return x is other or self.layout(x) == self.layout(other)

    def all_writable(self, xs: Iterable[Array]) -> bool:
        no_inference = not any([x.is_inference() for x in xs])  # type: ignore[attr-defined]  # noqa: C419 - faster
        return no_inference or sys.modules["torch"].is_inference_mode_enabled()

    def writable(self, x: Array) -> bool:
        return self.all_writable([x])

    def write(self, out: Array, value: Array) -> None:
        out.copy_(value)  # type: ignore[attr-defined]

    def layout(self, x: Array) -> Layout:
        return x.data_ptr(), tuple(x.shape), _steps(x), x.element_size()  # type: ignore[attr-defined]
