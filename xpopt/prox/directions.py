"""Vectors divided by their norms, whatever the size of their elements."""

from __future__ import annotations

from typing import Any

from .._arrays.namespace import library_of
from .._arrays.norms import norms_along
from .._arrays.typing import Namespace


def directions(xp: Namespace, x: Any, axis: int | tuple[int, ...], instead: Any) -> Any:
    """Return the unit vectors along some axes.

    Parameters
    ----------
    xp : Namespace
        The functions of the array's library.
    x : array
        float32 or float64; not empty.
    axis : int or tuple of int
        The axes that a vector is along.
    instead : float or array
        What is in the place of a vector of zeros.

    Returns
    -------
    array like `x`
        NaN where a vector is not finite.
    """
    scale, norm = norms_along(xp, x, axis)
    return xp.where(norm == 0.0, instead, x / scale / norm)


def real_axis(xp: Namespace, pairs: Any) -> Any:
    """Return 1 as a pair.

    Parameters
    ----------
    xp : Namespace
        The functions of the array's library.
    pairs : array, (..., 2)
        What it is to be computed with.

    Returns
    -------
    array, (2,)
        Of the dtype of `pairs`, where these are.
    """
    library = library_of(pairs)
    assert library is not None
    return 1.0 - xp.astype(library.arange(2, pairs), pairs.dtype)
