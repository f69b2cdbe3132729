"""A parameter and its gradient as the caller gave them: taken in, checked against each other, described."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .library import LOW, PAIRS, SUPPORTED, Library, is_complex, real_of
from .memory import overlaps_itself
from .namespace import library_of
from .tree import show
from .typing import Array

_ndarray = np.ndarray  # looked up at every update


class Spec(NamedTuple):
    """What a parameter is, apart from its values; plain data, so that it pickles with any library."""

    library: str
    dtype: Any
    shape: tuple[int, ...]
    device: str
    compute: Any  # the dtype of its slots and of its arithmetic, for complex numbers that of their parts

    def fits(self, param: Any, grad: Any) -> bool:
        """Whether two plain NumPy arrays are as described; False sends them through `examine`, which can say why."""
        shape, dtype = self.shape, self.dtype
        return (
            self.library == "numpy"
            and type(param) is _ndarray
            and type(grad) is _ndarray
            and param.shape == shape
            and grad.shape == shape
            and param.dtype == dtype
            and grad.dtype == dtype
        )

    @property
    def parts(self) -> int:
        """How many reals an element is: 2 of a complex number."""
        return 2 if is_complex(self.dtype) else 1

    def of_reals(self, library: Library) -> Spec:
        """Return the description of `Library.reals` of a complex parameter."""
        dtype = library.dtype(real_of(dtype_text(self.dtype)))
        return Spec(self.library, dtype, (*self.shape, 2), self.device, dtype)

    def describe(self) -> str:
        """Write the description for a message."""
        return f"{self.library} {dtype_text(self.dtype)} of shape {self.shape} on {self.device}"


def dtype_text(dtype: Any) -> str:
    """Write a dtype for a message, without its library."""
    return str(dtype).rpartition(".")[2]


def examine(param: Any, grad: Any, name: Hashable) -> tuple[Library, Spec, Array, Array]:
    """Take in a parameter and its gradient.

    Parameters
    ----------
    param, grad : array, number or nested list of numbers
        Numbers, NumPy scalars and lists become arrays like the other argument; if neither is an array, of NumPy's
        float64 or complex128.
    name : hashable
        The parameter's name, for messages.

    Returns
    -------
    library : Library
    spec : Spec
    param, grad : array
        As a rule may see them. A gradient of another floating dtype has been converted, once, to that of the
        arithmetic.

    Raises
    ------
    TypeError
        One of them is no array of floating-point numbers, or they differ in library, or one alone is complex.
    ValueError
        They differ in shape or device.
    """
    what_param, what_grad = f"parameter {show(name)}", f"gradient of {show(name)}"
    if library_of(param) is None:
        param = convert(param, library_of(grad), grad, what_param)
    if library_of(grad) is None:
        grad = convert(grad, library_of(param), param, what_grad, to_complex=True)
    library, other = library_of(param), library_of(grad)
    assert library is not None and other is not None
    if library is not other:
        raise TypeError(
            f"{what_grad} is an array of {other.name}, the parameter one of {library.name}; convert one of them"
        )
    param = admit(library, param, what_param)
    grad = admit(library, grad, what_grad)
    shape = tuple(param.shape)
    if tuple(grad.shape) != shape:
        raise ValueError(f"{what_grad} has shape {tuple(grad.shape)}, the parameter has {shape}")
    if any(size != size or size is None for size in shape):
        raise ValueError(f"{what_param} has the unknown shape {shape}; compute its chunk sizes first")
    device = library.place(param)
    if library.place(grad) != device:
        raise ValueError(f"{what_grad} is on {library.place(grad)}, the parameter on {device}; move the gradient")
    spec = Spec(library.name, param.dtype, shape, device, library.compute_dtype(param.dtype))
    if grad.dtype != spec.dtype:
        check_kinds(param, grad, what_grad)
        grad = library.astype(grad, spec.compute)
    return library, spec, param, grad


def check_kinds(param: Array, grad: Array, what_grad: str) -> None:
    """Raise a TypeError that begins with `what_grad` if one of the two is complex and the other is not."""
    if is_complex(param.dtype) == is_complex(grad.dtype):
        return
    came = f"{what_grad} has dtype {dtype_text(grad.dtype)}, and the parameter is {dtype_text(param.dtype)}"
    if is_complex(grad.dtype):
        raise TypeError(f"{came}; pass the real part, grad.real, which is the gradient of a real parameter")
    raise TypeError(
        f"{came}; pass dL/d(real part) + 1j * dL/d(imaginary part), which is complex also where one of them is 0"
    )


def examine_resting(param: Any, name: Hashable) -> tuple[Library, Spec, Array]:
    """Take in a parameter without a gradient, of any dtype, whose value is to be written elsewhere.

    Parameters
    ----------
    param : array or float
        Numbers and NumPy scalars become arrays of NumPy.
    name : hashable
        The parameter's name, for messages.

    Returns
    -------
    library : Library
    spec : Spec
    param : array
        What it is, and its values.

    Raises
    ------
    TypeError
        It is no array.
    """
    what = f"parameter {show(name)}"
    if is_number(param) or isinstance(param, np.generic):
        param = np.asarray(param)
    library = library_of(param)
    if library is None:
        raise TypeError(f"{what} is a {type(param).__name__}, which cannot be written into out; wanted an array")
    param = _admit(library, param, what)
    shape, device = tuple(param.shape), library.place(param)
    return library, Spec(library.name, param.dtype, shape, device, param.dtype), param


def check_resting(param: Any, grad: Any, name: Hashable) -> None:
    """Raise a ValueError if what came as the gradient of a parameter that stays as it is has another shape.

    Parameters
    ----------
    param : array, float or list
        The parameter.
    grad : array, float, list or None
        What came; of any dtype, library and device.
    name : hashable
        The parameter's name, for the message.
    """
    if grad is None:
        return
    shape, wanted = (tuple(x.shape) if hasattr(x, "shape") else np.shape(x) for x in (grad, param))
    if shape != wanted:
        raise ValueError(f"gradient of {show(name)} has shape {shape}, the parameter has {wanted}")


def is_number(x: Any) -> bool:
    """Whether `x` is a Python float or complex, and not NumPy's scalar, which is one too."""
    return isinstance(x, float | complex) and not isinstance(x, np.generic)


def as_number(x: Array) -> complex:
    """Return an array of shape () as a number of Python's."""
    return complex(x) if is_complex(x.dtype) else float(x)  # type: ignore[call-overload, arg-type]


def lies_in_memory(x: Any) -> bool:
    """Whether `x` is an array that may be written, so that it can be asked where it lies."""
    library = library_of(x)
    if library is None or not library.mutable:
        return False
    try:
        library.admit(x)
    except TypeError:
        return False
    return True


def admit(library: Library, x: Any, what: str) -> Array:
    """Return `x` as a rule may see it, or raise a TypeError that begins with `what`."""
    x = _admit(library, x, what)
    check_dtype(library, x, what)
    return x


def check_dtype(library: Library, x: Any, what: str) -> None:
    """Raise a TypeError that begins with `what` unless the dtype of `x` can be computed with."""
    if library.dtype_name(x.dtype) is None:
        raise TypeError(f"{what} has dtype {dtype_text(x.dtype)}; {_way_out(x.dtype)}")


def _admit(library: Library, x: Any, what: str) -> Array:
    try:
        return library.admit(x)
    except TypeError as error:
        raise TypeError(f"{what} {error}") from None


def check_out(library: Library, spec: Spec, param: Array, out: Any, name: Hashable) -> tuple[Array, Array]:
    """Check that the result of a parameter can be written into `out`.

    Parameters
    ----------
    library, spec, param
        The parameter, as `examine` returns it.
    out : array
        Where the result is to go.
    name : hashable
        The parameter's name, for messages.

    Returns
    -------
    param, out : array
        As an engine may see them: one object if they are the same memory, which is then updated in place.

    Raises
    ------
    TypeError
        `out` is no array of the parameter's library, of another dtype, or of a library without writable arrays.
    ValueError
        It has another shape or device, is read-only, or overlaps itself.
    """
    if (
        type(out) is _ndarray
        and spec.library == "numpy"
        and out.shape == spec.shape
        and out.dtype == spec.dtype
        and out.flags.writeable
        and out.flags.c_contiguous
    ):  # as it nearly always is
        return (out, out) if out is param or library.is_same(out, param) else (param, out)
    what = f"out of {show(name)}"
    if not library.mutable:
        raise TypeError(f"{what}: arrays of {library.name} cannot be written; use the returned value instead of out=")
    if library_of(out) is not library:
        raise TypeError(f"{what} is a {type(out).__name__}; wanted an array of {library.name}")
    view = _admit(library, out, what)
    if tuple(view.shape) != spec.shape:
        raise ValueError(f"{what} has shape {tuple(view.shape)}, the parameter has {spec.shape}")
    if view.dtype != spec.dtype:
        raise TypeError(f"{what} is {dtype_text(view.dtype)}, the parameter is {dtype_text(spec.dtype)}")
    if library.place(view) != spec.device:
        raise ValueError(f"{what} is on {library.device(view)}, the parameter on {spec.device}")
    if not library.writable(out):
        raise ValueError(f"{what} is read-only; pass a writable array, or use the returned value")
    if overlaps_itself(library.layout(view)):
        raise ValueError(f"{what} overlaps itself (strides of a broadcast or sliding view); pass a plain array")
    return (view, view) if library.is_same(view, param) else (param, view)


def is_slot(library: Library, spec: Spec, x: Any, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether `x` can be a slot of that shape and dtype of a parameter so described."""
    if library.name == "numpy":
        return type(x) is _ndarray and library.dtype_name(x.dtype) == dtype and x.shape == shape
    return (
        library_of(x) is library
        and library.dtype_name(x.dtype) == dtype
        and tuple(x.shape) == shape
        and (library.place(x) == spec.device or (shape != spec.shape and library.is_spread(x)))
    )


def convert(value: Any, library: Library | None, like: Any, what: str, *, to_complex: bool = False) -> Array:
    """Make an array of a number or nested list.

    Parameters
    ----------
    value : number or list
        It stays real or complex.
    library : Library or None
        Of `like`; None for NumPy's float64 or complex128.
    like : array
        What it is to be like, in its precision.
    what : str
        The beginning of messages.
    to_complex : bool
        Whether reals become complex where `like` is.

    Returns
    -------
    array
        A new one.

    Raises
    ------
    TypeError
        `value` is neither, or has other numbers.
    """
    wanted = "wanted an array, a float or a nested list of floats"
    if not isinstance(value, (float, int, complex, np.generic, list, tuple)):
        if isinstance(value, Mapping) or hasattr(value, "named_parameters"):
            wanted += " (for a model: update_all)"
        if isinstance(value, str):
            wanted += " (of pairs of names and arrays: dict(pairs))"
        raise TypeError(f"{what} is a {type(value).__name__}; {wanted}")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{what} is a {type(value).__name__} that cannot be converted to an array ({error}); {wanted}"
        ) from None
    if array.dtype.name not in (*SUPPORTED, *PAIRS):
        raise TypeError(f"{what} has dtype {array.dtype.name} (type {type(value).__name__}); {wanted}")
    if library is None or library.dtype_name(like.dtype) is None:  # an unusable `like` gets its own error later
        return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
    if is_complex(like.dtype) != (array.dtype.kind == "c") and not (to_complex and is_complex(like.dtype)):
        name = real_of(dtype_text(like.dtype))
        if array.dtype.kind == "c":
            name = "complex128" if name == "float64" else "complex64"
        like = library.full((), 0.0, library.dtype(name), like)
    with np.errstate(all="ignore"):
        return library.from_numpy(array, like)


def _way_out(dtype: Any) -> str:
    if getattr(dtype, "isnative", True) is False:
        return "convert it to the machine's own byte order, x.astype(x.dtype.newbyteorder('='))"
    return f"convert it to one of {', '.join((*LOW, 'float32', 'float64', *PAIRS))}"
