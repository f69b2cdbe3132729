"""Which array library is this, asked without importing any.

What differs between them is in `libraries`: methods of `Library`, which a library that needs it overrides.
"""

from __future__ import annotations

import functools
import importlib
import weakref
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from .libraries.numpy import NumPy
from .library import Library
from .typing import Array

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


_KINDS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("cupy", "CuPy", array_api_compat.is_cupy_array),
    ("torch", "Torch", array_api_compat.is_torch_array),
    ("jax", "JAX", array_api_compat.is_jax_array),
    ("dask", "Dask", array_api_compat.is_dask_array),
)
"""Of each library but NumPy its name, which its file in `libraries` has too, the class there, and what knows it."""


def _identify(x: Any) -> Library | None:
    kind: type[Library]
    if isinstance(x, np.ndarray):  # first, for the others would remember the class
        name, kind = "numpy", NumPy
    elif found := next(((name, of) for name, of, is_one in _KINDS if is_one(x)), None):
        name, kind = found[0], getattr(importlib.import_module(f".libraries.{found[0]}", __package__), found[1])
    elif isinstance(x, np.generic | type) or not hasattr(x, "__array_namespace__"):
        return None
    else:
        name, kind = x.__array_namespace__().__name__, Library
    if name in _NAMED:
        return _NAMED[name]
    return _NAMED.setdefault(name, kind(name, array_api_compat.array_namespace(x)))  # one, whichever thread makes it
