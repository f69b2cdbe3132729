"""Numbers of arrays, read by the host together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays.library import Library, is_complex
from .._arrays.typing import Array, Namespace


def read(library: Library, like: Array, items: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return numbers on the host, which waits for the device once.

    Parameters
    ----------
    library : Library
        That of all arrays; called with it set up for `like`.
    like : array
        On their device.
    items : sequence of float or array
        Arrays of one axis, or of shape ().

    Returns
    -------
    ndarray of float64
        All of them in a row.
    """
    xp = library.xp
    wide = xp.float64 if library.has_float64(like) else xp.float32
    arrays = [xp.astype(xp.reshape(x, (-1,)), wide) for x in items if not isinstance(x, float)]
    values: Iterator[Any] = iter(())
    if arrays:
        (host,) = library.to_numpy([arrays[0] if len(arrays) == 1 else xp.concat(arrays)])
        values = iter(np.split(np.asarray(host, np.float64), np.cumsum([x.shape[0] for x in arrays])[:-1]))
    return np.concatenate([[x] if isinstance(x, float) else next(values) for x in items])


def largest(xp: Namespace, x: Any) -> Array:
    """Return the largest magnitude among real numbers, and the parts of complex ones: an array of shape ()."""
    if 0 in x.shape:
        return xp.sum(xp.abs(x))
    if is_complex(x.dtype):
        return xp.maximum(xp.max(xp.abs(xp.real(x))), xp.max(xp.abs(xp.imag(x))))
    return xp.max(xp.abs(x))


def parts(xp: Namespace, x: Any) -> tuple[Array, ...]:
    """Return the real and the imaginary part of complex numbers, and others as they are."""
    return (xp.real(x), xp.imag(x)) if is_complex(x.dtype) else (x,)
