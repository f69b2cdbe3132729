"""What the tests of float16 and bfloat16 share: their numbers, and the roundings to them, without anyone's cast.

A number of 16 bits is held in float64 here, which has them all. float32 goes to 16 bits by integer arithmetic on its
own bits, as IEEE 754 describes it.
"""

import functools
import hashlib
import json
import math
from fractions import Fraction

import numpy as np
import pytest

writes_16_bits = pytest.mark.backends("numpy", "numpy-readonly", "torch", "cupy")
"""For tests that write arrays of 16 bits, or give them strides."""

LOST = {"float16": 13, "bfloat16": 16}
"""Binary digits of a float32 that a number of the dtype has no place for."""

SMALLEST = {"float16": -24, "bfloat16": -133}
"""The power of two that all numbers of the dtype are multiples of."""

NORMAL = {"float16": -14, "bfloat16": -126}
"""The smallest power of two with all digits."""

LARGEST = {"float16": 65504.0, "bfloat16": float(np.ldexp(255.0, 120))}

FLUSHING = ("cupy", "jax")
"""Libraries that may take subnormal float32 for 0."""


def all_numbers(dtype):
    """All 65536, by their bits, NaN included."""
    bits = np.arange(65536, dtype=np.uint32)
    if dtype == "bfloat16":
        with np.errstate(invalid="ignore"):  # NaN that signal
            return (bits << 16).view(np.float32).astype(np.float64)
    exponent, fraction = (bits >> 10 & 31).astype(int), (bits & 1023).astype(np.float64)
    size = np.where(exponent > 0, np.ldexp(1024 + fraction, exponent - 25), np.ldexp(fraction, -24))
    size = np.where(exponent == 31, np.where(fraction > 0, np.nan, np.inf), size)
    return np.where(bits >> 15, -size, size)


def finite_numbers(dtype):
    """Those that are finite, in ascending order, -0.0 and 0.0 as one."""
    values = all_numbers(dtype)
    return np.unique(values[np.isfinite(values)] + 0.0)


def nearest(x, dtype):
    """Round float32 to the nearest number of the dtype, half to even; the result is float64."""
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float32).astype(np.float64)
        _, exponent = np.frexp(np.where(np.isfinite(x), x, 0.0))
        step = np.ldexp(1.0, np.maximum(exponent - (24 - LOST[dtype]), SMALLEST[dtype]))
        rounded = np.rint(x / step) * step  # a power of two; rint is half to even
        beyond = np.abs(rounded) > LARGEST[dtype]
        return np.where(np.isfinite(x), np.where(beyond, np.copysign(np.inf, x), np.copysign(rounded, x)), x)


def neighbours(x, dtype):
    """The two numbers of the dtype around a Fraction, the one nearer to zero first, and how far it is on its way."""
    above, below = abs(x.numerator), x.denominator
    exponent = above.bit_length() - below.bit_length()
    if above << max(-exponent, 0) < below << max(exponent, 0):
        exponent -= 1
    step = max(exponent - (23 - LOST[dtype]), SMALLEST[dtype])  # 2**step is from one to the next
    above, below = above << max(-step, 0), below << max(step, 0)
    whole, rest = divmod(above, below)
    low, high = (Fraction(k << max(step, 0), 1 << max(-step, 0)) for k in (whole, whole + 1))
    return low, high, Fraction(rest, below)


# Random bits, as docs/guide/precision.md describes them, in Python's integers

_32_BITS = 2**32 - 1


def mixed(bits):
    bits ^= bits >> 16
    bits = bits * 0x7FEB352D & _32_BITS
    bits ^= bits >> 15
    bits = bits * 0x846CA68B & _32_BITS
    return bits ^ bits >> 16


def key_of(seed, t, name):
    """Two unsigned integers of 32 bits, for a name as JSON has it."""
    digest = hashlib.blake2b(json.dumps([seed, t, name]).encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def random_bits(key, size):
    """An integer of 32 bits for each place."""
    first, second = key
    return [mixed(mixed(place ^ first) + second & _32_BITS) for place in range(size)]


def stochastic(x, bits, dtype):
    """Round one float32 by its random bits; exact."""
    x = float(x)
    if not np.isfinite(x):
        return x
    low, high, least = _around(abs(x), dtype)
    return math.copysign(high if bits % 2 ** LOST[dtype] >= least else low, x)


@functools.cache
def _around(size, dtype):
    """The two floats that a float of at least 0 may be rounded to, and the least noise that makes it the second."""
    low, high, way = neighbours(Fraction(size), dtype)
    steps = 2 ** LOST[dtype]  # of noise, which goes up where it and the way make 1
    least = (1 - way) * steps
    if dtype == "float16" and size < 2.0**-14:  # more digits are lost than there is noise: in the middle of its steps
        least -= Fraction(1, 2)
    low, high = (math.inf if x > LARGEST[dtype] else x for x in (float(low), float(high)))
    return low, high, math.ceil(least)
