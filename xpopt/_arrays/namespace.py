"""Which array library is this, asked without importing any; and what differs between them.

The array API standard covers the arithmetic. The few things that it leaves open (who may be written to, what records
gradients, where an array lives in memory) are methods of `Library`, overridden for the libraries that need it.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import array_api_compat
import numpy as np

from .addressed import addressed
from .library import LOW, PAIRS, SUPPORTED, Layout, Library, joined_in_numpy, pairs_in_numpy
from .reducing import reducing
from .typing import Array, Namespace

_NAMES = (*SUPPORTED, *PAIRS)


class _NumPyDtypes(Library):
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


class _NumPy(_NumPyDtypes):
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


def _bytes_field(x: bytes) -> int:
    """Read the address from where CPython keeps bytes, in front of the zero that ends them."""
    return id(x) + bytes.__basicsize__ - 1


def _address_of_bytes(x: bytes) -> int:
    return address_of(np.frombuffer(x, np.uint8))


_bytes_as_expected = sys.implementation.name == "cpython" and _bytes_field(b"xpopt") == _address_of_bytes(b"xpopt")
address_of_bytes = _bytes_field if _bytes_as_expected else _address_of_bytes
"""Return where the data of a NumPy array begins."""


class _CuPy(_NumPyDtypes):
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
        return self.guard(lambda like: super(_CuPy, self).from_numpy(values, like))(like)

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


class _Torch(Library):
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
            return [
                (type(x), x.data_ptr(), x.shape, x.dtype, x.stride(), x.is_cpu, x.is_neg(), x.is_conj()) for x in xs
            ]
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


class _Immutable(_NumPyDtypes):
    mutable = False

    def is_lazy(self, x: Array) -> bool:
        return True

    def may_share(self, x: Array, others: list[Array]) -> bool:
        return False


class _JAX(_Immutable):
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


class _Dask(_Immutable):
    deferred = True

    def pieces(self, x: Array, like: Array) -> Array:
        chunks = _chunks(x.shape, like)
        return x if x.chunks == chunks else x.rechunk(chunks)  # type: ignore[attr-defined]

    def full(self, shape: tuple[int, ...], value: complex, dtype: Any, like: Array) -> Array:
        return self.xp.full(shape, value, dtype=dtype, chunks=_chunks(shape, like))

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        # an entry of the graph for each chunk, which travels alone; nothing is hashed for a name
        chunks = _chunks(values.shape, like)
        array: Array = self.xp.from_array(values.astype(like.dtype), chunks=chunks, name=False)
        return array

    def to_numpy(self, xs: list[Array]) -> Iterable[Any]:
        return sys.modules["dask"].compute(*xs)  # together, for they have much of their graphs in common

    def _pairs(self, x: Array) -> Array:
        whole: Any = x
        dtype, chunks = np.dtype(PAIRS[whole.dtype.name]), (*whole.chunks, (2,))
        pairs: Array = whole.map_blocks(pairs_in_numpy, dtype=dtype, chunks=chunks, new_axis=whole.ndim)
        return pairs

    def joined(self, pairs: Array) -> Array:
        parts: Any = pairs
        parts = parts.rechunk({-1: -1})
        dtype = np.dtype(f"c{parts.dtype.itemsize * 2}")
        joined: Array = parts.map_blocks(joined_in_numpy, dtype=dtype, drop_axis=parts.ndim - 1)
        return joined

    def copy(self, x: Array) -> Array:
        return x

    def has_float64(self, x: Array) -> bool:
        return True


def _chunks(shape: tuple[int, ...], like: Any) -> Any:
    """Return the chunks in which an array is computed with `like`; those of one size are cut alike."""
    if len(shape) != len(like.shape):
        return "auto" if shape else ()
    sizes = zip(shape, like.shape, like.chunks, strict=True)
    return tuple(chunks if size == whole else (size,) for size, whole, chunks in sizes)


_LIBRARIES: dict[type, Library | None] = {}
_OTHERS: weakref.WeakKeyDictionary[type, Library | None] = weakref.WeakKeyDictionary()
_NAMED: dict[str, Library] = {}


def library_of(x: Any) -> Library | None:
    """Return the library of the array `x`, or None if `x` is no array. Imports nothing."""
    try:
        return _LIBRARIES[type(x)]
    except KeyError:
        return _library_of_other(x)


def _library_of_other(x: Any) -> Library | None:
    """Look at an object of a class that is not known for good; a class of somebody else's may come and go."""
    cls = type(x)
    try:
        return _OTHERS[cls]
    except KeyError:
        library = _identify(x)
    package = cls.__module__.partition(".")[0]
    lasting = not cls.__flags__ & _HEAP or (library is not None and package == library.name.partition(".")[0])
    (_LIBRARIES if lasting else _OTHERS)[cls] = library
    return library


_HEAP = 1 << 9  # the flag of classes that are made while a program runs


def copy_array(x: Array) -> Array:
    """Return a copy of an array of any library, on its own device."""
    library = library_of(x)
    assert library is not None
    copied: Array = _guarded(library, "copy")(x)
    return copied


def write(out: Array, value: Array) -> None:
    """Write `value` into the array `out` of any library, which has its shape, dtype and device."""
    writer(out)(out, value)


def writer(out: Array) -> Callable[[Array, Array], None]:
    """Return what writes a value into arrays of the library of `out`."""
    library = library_of(out)
    assert library is not None
    write_to: Callable[[Array, Array], None] = library.write if library.name == "numpy" else _guarded(library, "write")
    return write_to


@functools.cache
def _guarded(library: Library, method: str) -> Callable[..., Any]:
    return library.guard(getattr(library, method))


def _identify(x: Any) -> Library | None:
    kinds: tuple[tuple[str, type[Library], Callable[[Any], bool]], ...] = (
        ("numpy", _NumPy, lambda x: isinstance(x, np.ndarray)),
        ("cupy", _CuPy, array_api_compat.is_cupy_array),
        ("torch", _Torch, array_api_compat.is_torch_array),
        ("jax", _JAX, array_api_compat.is_jax_array),
        ("dask", _Dask, array_api_compat.is_dask_array),
    )
    found = next(((name, kind) for name, kind, is_one in kinds if is_one(x)), None)
    if found is None:
        if isinstance(x, np.generic | type) or not hasattr(x, "__array_namespace__"):
            return None
        found = x.__array_namespace__().__name__, Library
    name, kind = found
    if name in _NAMED:
        return _NAMED[name]
    return _NAMED.setdefault(name, kind(name, array_api_compat.array_namespace(x)))  # one, whichever thread makes it
