"""Stochastic rounding: to one of the two nearest numbers of 16 bits, so that the mean is the number itself.

The random bits are a hash of a key and of the place in the array: integers of 32 bits, which every library multiplies
alike, so that a seed gives the same parameters on all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.library import Library
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array
from .numbers import Key

_LOST = {"float16": 13, "bfloat16": 16}
"""The bits of a float32 that a number of 16 bits has no place for."""

_SUBNORMAL, _STEPS = 2.0**-14, 2.0**24
"""Where float16 has fewer digits than that: below the first, its numbers are whole parts of the second."""


def round_stochastically(library: Library, x: Array, dtype: Any, key: Key) -> Array:
    """Return `x` in a dtype of 16 bits.

    Parameters
    ----------
    library : Library
        Whose array `x` is.
    x : array of float32
        What to round. What is not finite, or is a number of `dtype`, stays as it is.
    dtype : dtype
        The library's float16 or bfloat16.
    key : Key
        Another one for each update of each parameter.

    Returns
    -------
    array like `x`
        In `dtype`: of the two neighbours of each element, the upper one with a probability that is its distance from
        the lower one, in parts of ``2**-13`` (float16) or ``2**-16`` (bfloat16) of their distance.

    References
    ----------
    .. [1] Gupta, Agrawal, Gopalakrishnan and Narayanan, "Deep Learning with Limited Numerical Precision", ICML 2015,
       arXiv:1502.02551, section 3.
    """
    xp = library.xp
    if x.shape == ():  # NumPy warns of integers that overflow in scalars; with Dask, where nobody can prevent it
        return xp.reshape(round_stochastically(library, xp.reshape(x, (1,)), dtype, key), ())
    name = dtype_text(dtype)
    lost = _LOST[name]
    noise = random_bits(library, x, key) & ((1 << lost) - 1)
    # a finite float32 is a number of 31 bits with a sign in front: what carries from the bits lost goes into its size
    bits: Any = library.view(x, xp.int32)
    rounded = library.view((bits + noise) & -(1 << lost), xp.float32)
    if name == "float16":
        chance = (xp.astype(noise, xp.float32) + 0.5) * 2.0**-lost
        small: Any = library.view(xp.floor(xp.abs(x) * _STEPS + chance) / _STEPS, xp.int32)
        small = library.view(small | (bits & -(2**31)), xp.float32)  # with the sign, also of a zero
        rounded = xp.where(xp.abs(x) < _SUBNORMAL, small, rounded)
    return xp.astype(xp.where(xp.isfinite(x), rounded, x), dtype)


def random_bits(library: Library, like: Array, key: Key) -> Any:
    """Return an int32 array of the shape of `like`, every bit of it random."""
    first, second = key
    bits = _places(library, like) ^ first
    return _mixed(_mixed(bits) + second)


def _places(library: Library, like: Array) -> Any:
    """Return the number of each place in C order, modulo 2**32."""
    xp, ndim = library.xp, len(like.shape)
    places, step = xp.zeros_like(like, dtype=xp.int32), 1
    for axis in reversed(range(ndim)):
        size = like.shape[axis]
        along = library.arange(size, like) * _signed(step)
        places = places + xp.reshape(along, (1,) * axis + (size,) + (1,) * (ndim - 1 - axis))
        step *= size
    return places


def _mixed(bits: Any) -> Any:
    # the permutation with shifts of 16, 15 and 16 of Wellons, "Prospecting for Hash Functions", 2018
    bits = _folded(bits, 16) * 0x7FEB352D
    bits = _folded(bits, 15) * _signed(0x846CA68B)
    return _folded(bits, 16)


def _folded(bits: Any, shift: int) -> Any:
    """Return ``bits ^ (bits >> shift)``, the shift being that of unsigned integers."""
    return bits ^ ((bits >> shift) & ((1 << (32 - shift)) - 1))


def _signed(number: int) -> int:
    """Return the int32 of the same 32 bits."""
    return int(np.uint32(number % 2**32).view(np.int32))
