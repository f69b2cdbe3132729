"""Arrays that are looked at together: of one library, on one device; and their norm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .library import Library
from .namespace import library_of
from .norms import joint_norm
from .parameter import admit, check_dtype, convert
from .typing import Array


def taken_in(found: Sequence[tuple[str, Any]]) -> tuple[Library | None, list[Array]]:
    """Return the library of some arrays, and the arrays as they may be computed with.

    Parameters
    ----------
    found : sequence of (str, array or float)
        Each with what it is called in messages.

    Returns
    -------
    library : Library or None
        None if there are none.
    leaves : list of array
        The arrays; floats have become arrays of shape ().

    Raises
    ------
    TypeError
        One is no array of floating-point numbers, or of another library than the first.
    ValueError
        One is on another device than the first.
    """
    first, like = next(((what, x) for what, x in found if library_of(x) is not None), ("", None))
    library = library_of(like)
    leaves = []
    for what, x in found:
        if library_of(x) is None:
            x = convert(x, library, like, what)
        if library is None:  # numbers alone, which are arrays of NumPy now
            first, like, library = what, x, library_of(x)
        leaves.append(_checked(library, x, what, like, first))
    return library, leaves


def _checked(library: Any, x: Any, what: str, like: Any, other: str) -> Array:
    """Return an array as it may be computed with, or raise an error: it is not like the first."""
    own = library_of(x)
    assert own is not None
    if own is not library:
        raise TypeError(f"{what} is an array of {own.name}, {other} of {library.name}; convert one of them")
    if own.name == "jax":  # also of a function that is being traced: nothing is kept
        check_dtype(own, x, what)
    else:
        x = admit(own, x, what)
    device, wanted = str(own.device(x)), str(own.device(like))
    if device != wanted:
        raise ValueError(
            f"{what} is on {device}, {other} on {wanted}; move it, or take global_norm of what is on each device, "
            f"and math.hypot of the norms"
        )
    return x


def norm_of(library: Library, arrays: Iterable[Array]) -> tuple[Array, Array]:
    """Return the norm of all of some arrays as a scale and a rest; called with the library set up for the first.

    Parameters
    ----------
    library : Library
        The library of the arrays.
    arrays : iterable of array
        The arrays, of which there is one.

    Returns
    -------
    scale, rest : array of shape ()
        As `norms.joint_norm` returns them; both 0 if all are empty.
    """
    found = [library.reals(x) for x in arrays]
    xp, float64 = library.xp, library.has_float64(found[0])
    full = [x for x in found if 0 not in x.shape]
    if not full:
        zero = xp.sum(xp.astype(found[0], xp.float64 if float64 else xp.float32))  # on its device
        return zero, zero
    return joint_norm(xp, full, float64=float64)
