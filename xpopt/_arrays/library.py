"""What xpopt asks of an array library, answered as the array API standard describes it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import array_api_compat
import numpy as np

from .typing import Array, Namespace

LOW = ("float16", "bfloat16")
"""Dtypes that are computed, and keep their state, in float32."""

SUPPORTED = (*LOW, "float32", "float64")

PAIRS = {"complex64": "float32", "complex128": "float64"}
"""Dtypes of complex numbers, each with that of the real and the imaginary part."""


def compute_of(dtype: str) -> str:
    """Return the name of the dtype that parameters of a dtype are computed in and keep their state in."""
    return "float32" if dtype in LOW else dtype


def real_of(dtype: str) -> str:
    """Return the name of the dtype of the parts of complex numbers; of reals, their own."""
    return PAIRS.get(dtype, dtype)


def is_complex(dtype: Any) -> bool:
    """Whether a dtype of any library is one of complex numbers that can be updated."""
    return _is_complex(type(dtype).__name__, dtype)  # dtypes of two libraries do not compare


@functools.cache
def _is_complex(kind: str, dtype: Any) -> bool:
    return str(dtype).rpartition(".")[2] in PAIRS


def pairs_in_numpy(x: Any) -> Any:
    """Return a complex array of NumPy, of any layout, as a view of its parts: one more axis, the last."""
    return x[..., np.newaxis].view(PARTS[x.itemsize])


def joined_in_numpy(pairs: Any) -> Any:
    """Return pairs in an array of NumPy as complex numbers, in the same memory where they are side by side there."""
    if pairs.strides[-1] != pairs.itemsize:
        pairs = np.ascontiguousarray(pairs)
    return pairs.view(_WHOLES[pairs.itemsize])[..., 0]


PARTS = {8: np.dtype(np.float32), 16: np.dtype(np.float64)}
"""NumPy's dtype of the parts of complex numbers, by the bytes of a number."""

_WHOLES = {4: np.dtype(np.complex64), 8: np.dtype(np.complex128)}


Layout = tuple[int, tuple[int, ...], tuple[int, ...], int]
"""An array's address, shape, strides in bytes and item size."""

FLUSHING = ("cupy", "jax")
"""Libraries whose arithmetic may take a subnormal number for 0."""


class Library:
    """One array library, as the standard describes it.

    Parameters
    ----------
    name : str
        Its name in messages, ``"numpy"``.
    xp : Namespace
        Its functions, as array-api-compat gives them.
    """

    mutable = True
    """Whether `out=` can be written."""
    deferred = False
    """Whether arrays are graphs of what is still to be computed, which grow with each update."""

    def __init__(self, name: str, xp: Namespace) -> None:
        self.name = name
        self.xp = xp
        self.of_rules = xp
        """Its functions as a rule gets them."""
        self._dtype_names: dict[Any, str] = {}

    def __repr__(self) -> str:
        """Name the library."""
        return f"<Library {self.name}>"

    def dtype_name(self, dtype: Any) -> str | None:
        """Return the standard's name of a supported `dtype`, else None."""
        if not self._dtype_names:
            self._dtype_names = {
                getattr(self.xp, name): name for name in (*SUPPORTED, *PAIRS) if hasattr(self.xp, name)
            }
        return self._dtype_names.get(dtype)

    def dtype(self, name: str) -> Any:
        """Return the dtype of one of the standard's names, or ``"bfloat16"``; a TypeError says that there is none."""
        if not hasattr(self.xp, name):
            raise TypeError(f"{self.name} has no {name}")
        return getattr(self.xp, name)

    def compute_dtype(self, dtype: Any) -> Any:
        """Return the dtype that arrays of `dtype` keep their state in, and are computed in, complex ones in parts."""
        return self.xp.float32 if self.dtype_name(dtype) in LOW else dtype

    def is_lazy(self, x: Array) -> bool:
        """Whether work on `x` goes on, or has yet to begin, when a function returns; to read a value is to wait."""
        return False

    def has_float64(self, x: Array) -> bool:
        """Whether the device of `x` can hold float64."""
        return "float64" in self.xp.__array_namespace_info__().dtypes(device=self.device(x))

    def device(self, x: Array) -> Any:
        """Return where `x` lives."""
        return array_api_compat.device(x)

    def place(self, x: Array) -> str:
        """Name where `x` lives; arrays that are computed with each other where they are have one name."""
        return str(self.device(x))

    def is_spread(self, x: Array) -> bool:
        """Whether `x` lies on several devices, in a way that depends on its shape."""
        return False

    def memory(self, x: Array) -> str:
        """Name the memory that the addresses of `x` are in; arrays of several libraries may share one."""
        return "host"

    def admit(self, x: Any) -> Array:
        """Return `x` as a rule may see it; a TypeError says why a rule may not."""
        return x

    def values(self, x: Any) -> Any:
        """Return an array of which only the values matter as a plain one; anything else as it is."""
        return x

    def from_numpy(self, values: np.ndarray[Any, Any], like: Array) -> Array:
        """Return a new array of `values` with the dtype and device of `like`."""
        return self.xp.asarray(values, dtype=like.dtype, device=self.device(like), copy=True)

    def to_numpy(self, xs: list[Array]) -> Iterable[np.ndarray[Any, Any]]:
        """Return the values of arrays on the host, to be read; memory may be shared."""
        return map(np.from_dlpack, xs)  # type: ignore[arg-type]

    def on_host(self, x: Any, lasting: bool = False) -> Any:
        """Return a NumPy array in the very memory of `x`, which a `lasting` one keeps; None if `x` has none."""
        return None

    def looks(self, xs: list[Any]) -> Any:
        """Return all that views of arrays of one dtype depend on, to be compared with `==`; None if one has no view."""
        return None

    def from_host(self, x: np.ndarray[Any, Any]) -> Array:
        """Return an array of this library in the very memory of a NumPy array, where `on_host` returns some."""
        raise NotImplementedError

    def note_written(self, xs: Iterable[Array]) -> None:
        """Note that values were written into arrays by what the library does not know of; nothing in it can fail."""

    def guard(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, whose first argument is an array, set up to compute on arrays of this library."""
        return np.errstate(all="ignore")(function)  # a caller's "raise" must not stop a rule half-way

    def guard_recorded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the same for a function that the library may differentiate."""
        return self.guard(function)

    def is_traced(self, x: Array) -> bool:
        """Whether `x` stands for an array in a function that is being traced."""
        return False

    def copy(self, x: Array) -> Array:
        """Return a copy of `x` that shares nothing with it."""
        return self.xp.asarray(x, copy=True)

    def astype(self, x: Array, dtype: Any) -> Array:
        """Return `x` in another dtype; what is beyond it is infinite."""
        converted: Array = self.guard(self.xp.astype)(x, dtype)
        return converted

    def reals(self, x: Array) -> Array:
        """Return complex numbers as pairs of their parts, along one more axis, the last; reals as they are."""
        return self._pairs(x) if is_complex(x.dtype) else x

    def from_reals(self, x: Array, like: Array) -> Array:
        """Return pairs `joined` if `like` is complex, else `x`."""
        return self.joined(x) if is_complex(like.dtype) else x

    def _pairs(self, x: Array) -> Array:
        pairs: Array = self.xp.stack([self.xp.real(x), self.xp.imag(x)], axis=-1)
        return pairs

    def joined(self, pairs: Array) -> Array:
        """Return pairs as the complex numbers whose parts they are, bit for bit."""
        # the standard makes complex numbers by arithmetic alone, of which 1j * inf is NaN + inf j, and -0 gets lost
        values = np.ascontiguousarray(np.from_dlpack(pairs))  # type: ignore[arg-type]
        joined: Array = self.xp.asarray(joined_in_numpy(values), device=self.device(pairs), copy=True)
        return joined

    def full(self, shape: tuple[int, ...], value: complex, dtype: Any, like: Array) -> Array:
        """Return an array of one value, where `like` is, and in the order of its memory if it has its shape."""
        if shape == tuple(like.shape):
            alike: Array = self.xp.full_like(like, value, dtype=dtype)
            return alike
        filled: Array = self.xp.full(shape, value, dtype=dtype, device=self.device(like))
        return filled

    def arange(self, size: int, like: Array) -> Array:
        """Return the numbers from 0 on as int32, to be computed with `like`."""
        numbers: Array = self.xp.arange(size, dtype=self.xp.int32, device=self.device(like))
        return numbers

    def pieces(self, x: Array, like: Array) -> Array:
        """Return `x` in the pieces that `like` is in, where arrays come in pieces."""
        return x

    def result(self, x: Array, param: Array) -> Array:
        """Return the new value of `param`, which has its shape and dtype, with all else that a type says of it."""
        return x

    def view(self, x: Array, dtype: Any) -> Array:
        """Return the bits of `x` as another dtype of the same size."""
        seen: Array = x.view(dtype)  # type: ignore[attr-defined]
        return seen

    def may_share(self, x: Array, others: list[Array]) -> bool:
        """Whether `x` may be a view of memory that is not its own alone; where that cannot be asked, True."""
        return True

    def is_same(self, x: Array, other: Array) -> bool:
        """Whether two arrays of one shape and dtype are the same memory, where an engine writes in place."""
        return x is other

    def all_writable(self, xs: Iterable[Array]) -> bool:
        """Whether `writable` is true of all arrays."""
        return all(map(self.writable, xs))

    def writable(self, x: Array) -> bool:
        """Whether values can be written into `x`; where that cannot be asked, its own values are."""
        try:
            self.write(x, x)
        except Exception:  # whatever a library raises for a read-only array
            return False
        return True

    def write(self, out: Array, value: Array) -> None:
        """Write `value` into `out`, which is like it."""
        out[...] = value  # type: ignore[index]

    def layout(self, x: Array) -> Layout:
        """Return the address, shape, strides in bytes and item size of `x`."""
        view = np.from_dlpack(x)  # type: ignore[arg-type]
        return view.ctypes.data, view.shape, view.strides, view.itemsize

    def bounds(self, x: Array) -> tuple[int, int]:
        """Return the first address of `x`, and the one after its last; equal if it is empty."""
        low, shape, strides, itemsize = self.layout(x)
        if 0 in shape:
            return low, low
        high = low + itemsize
        for count, step in zip(shape, strides, strict=True):
            if step < 0:
                low += (count - 1) * step
            else:
                high += (count - 1) * step
        return low, high
