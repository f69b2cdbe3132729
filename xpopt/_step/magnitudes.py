"""How large the elements of gradients are, on the host or where the gradients are."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import Library, pairs_in_numpy, real_of
from .._arrays.namespace import library_of
from .._arrays.norms import clip
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array
from .._engine.choice import chosen
from .._engine.cuda import finite as cuda_finite
from .._engine.limits import LARGEST

_BLOCK = 65_536
"""Elements looked at together, so that what is found out of them stays in the processor's cache."""

SAFE = 2.0
"""More than a clipped gradient's elements may be above `clip_norm`, by rounding."""


class Place(NamedTuple):
    """Where gradients are."""

    library: Library
    device: str
    lazy: bool  # whether the host goes on while work is done there

    def sizes(self, grads: Sequence[Array]) -> Sequence[float]:
        """Return a bound of the magnitudes in each, which is not finite if an element is not; the host waits once."""
        if self.library.name == "numpy":
            return list(map(_bound, grads))
        sizes = [largest_of(self.library)(grad) for grad in grads]
        if not self.lazy:
            return list(map(float, sizes))
        (values,) = self.library.to_numpy([stacked(self.library)(*sizes)])
        return values.tolist()

    def together(
        self, grads: Sequence[Array], limits: Sequence[float | Array], bounds: Sequence[float | None]
    ) -> Array:
        """Return a bool array of shape (), whether all, clipped to their bounds, are within limits, without a sync."""
        limits = [
            math.inf if bound is not None and isinstance(x, float) and bound * SAFE <= x else x
            for x, bound in zip(limits, bounds, strict=True)
        ]
        clipped = [
            bound is not None and not (isinstance(x, float) and x == math.inf)
            for x, bound in zip(limits, bounds, strict=True)
        ]
        known = [x for x in limits if isinstance(x, float)]
        fused = self.library.name == "cupy" and chosen() != "eager"
        if fused and not any(clipped) and len(known) == len(limits):
            found = cuda_finite.all_within([self.library.reals(grad) for grad in grads], known)
            if found is not None:
                return found
        within = within_limit(self.library)
        flags = [
            within(grad, largest, bound if is_clipped else None)
            for grad, largest, bound, is_clipped in zip(grads, limits, bounds, clipped, strict=True)
        ]
        return all_true(self.library)(stacked(self.library)(*flags))


def by_place(gradients: Mapping[Hashable, Array]) -> dict[Place, list[Hashable]]:
    """Return the names of gradients by where these are."""
    places: dict[Place, list[Hashable]] = {}
    for name, grad in gradients.items():
        library = library_of(grad)
        assert library is not None
        place = Place(library, library.place(grad), library.is_lazy(grad))
        places.setdefault(place, []).append(name)
    return places


def compute_of(grad: Array) -> str:
    """Return the dtype in which a rule computes with a gradient."""
    return "float64" if real_of(dtype_text(grad.dtype)) == "float64" else "float32"


@functools.cache
def within_limit(library: Library) -> Callable[[Array, float | Array, float | None], Array]:
    """Return what says whether all elements of a gradient are finite and, clipped if it is to be, within a limit."""
    xp = library.xp

    def within(grad: Array, largest: float | Array, clip_norm: float | None) -> Array:
        grad = library.reals(grad)
        wide = xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)  # CuPy cannot ask a bfloat16
        if clip_norm is not None:
            wide = clip(xp, wide, clip_norm, float64=library.has_float64(wide))
        is_any = isinstance(largest, float) and largest >= LARGEST[compute_of(grad)]
        return xp.all(xp.isfinite(wide) if is_any else xp.abs(wide) <= largest)

    return library.guard(within)


@functools.cache
def largest_of(library: Library) -> Callable[[Array], Any]:
    """Return what finds the largest magnitude in an array, 0 in an empty one."""
    xp = library.xp

    def find(grad: Array) -> Array:
        grad = library.reals(grad)
        wide = xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)  # CuPy has no maximum of bfloat16
        largest = xp.max(xp.abs(wide)) if 0 not in grad.shape else xp.sum(wide)
        return xp.astype(largest, xp.float64 if library.has_float64(grad) else xp.float32)

    return _largest_in_blocks if library.name == "numpy" else library.guard(find)


def _bound(grad: Any) -> float:
    """Return a bound of the magnitudes in NumPy's array: that of a norm, which takes far less time, if it is small."""
    kind, size = grad.dtype.char, grad.size
    if kind in "FD":
        return _bound(pairs_in_numpy(grad))
    if kind in _EASY and grad.flags.forc:
        elements = grad.reshape(-1) if grad.flags.c_contiguous else grad.T.reshape(-1)
        if size <= _PIECE:
            square = float(np.vdot(elements, elements))
        else:
            pieces = (elements[start : start + _PIECE] for start in range(0, size, _PIECE))
            squares = [float(np.vdot(piece, piece)) for piece in pieces]
            square = sum(squares)  # not `max`, which may leave out NaN
        easy, lost = _EASY[kind]
        if square < easy:
            return 1.1 * math.sqrt(square) + lost
    return _largest_in_blocks(grad)


_PIECE = 8_192
"""Elements whose squares BLAS adds up at once: so few that it uses no other threads."""

_EASY = {"f": (1e30, 2e-19), "d": (1e300, 2e-154)}
"""By dtype, the sums of squares that are far from overflow, and what may be lost in one by underflow, as a root."""


def _largest_in_blocks(grad: Any) -> float:
    """Return it for NumPy's arrays, found among the bits but the sign, which are in the order of magnitudes."""
    if grad.dtype.kind == "c":
        grad = pairs_in_numpy(grad)
    integer, but_sign = _BITS[grad.dtype.itemsize]
    bits = grad.view(integer)
    if grad.size <= _BLOCK or not grad.flags.forc:
        largest = np.maximum.reduce(np.bitwise_and(bits, but_sign), axis=None, initial=0)
    else:
        bits = bits.reshape(-1) if grad.flags.c_contiguous else bits.T.reshape(-1)
        starts = range(0, grad.size, _BLOCK)
        largest = max(np.bitwise_and(bits[start : start + _BLOCK], but_sign).max() for start in starts)
    return float(largest.view(grad.dtype))


_BITS: dict[int, tuple[Any, int]] = {2: (np.int16, 2**15 - 1), 4: (np.int32, 2**31 - 1), 8: (np.int64, 2**63 - 1)}
"""By the bytes of a number, the integer of as many, and the bits but the sign."""


@functools.cache
def stacked(library: Library) -> Callable[..., Array]:
    """Return what makes one array of several of shape ()."""
    return library.guard(lambda first, *others: library.xp.stack([first, *others]))


@functools.cache
def all_true(library: Library) -> Callable[[Array], Array]:
    """Return what says whether all elements of an array are true."""
    return library.guard(library.xp.all)
