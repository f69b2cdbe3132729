"""Gradients that are not finite: whether a step has one, on the host or on the device, and how many were left out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import Library, pairs_in_numpy, real_of
from .._arrays.namespace import library_of
from .._arrays.norms import clip
from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._arrays.typing import Array, Scalars
from .._engine import choose
from .._engine.cuda import finite as cuda_finite
from .._engine.limits import LARGEST, limit
from .._engine.together import any_of_all, is_together
from .._graph.rule import Rule
from .reduced import all_finite, sizes_of

_BLOCK = 65_536
"""Elements looked at together, so that what is found out of them stays in the processor's cache."""

_SHOWN = 10
"""Names in a message."""

_SAFE = 2.0
"""More than a clipped gradient's elements may be above `clip_norm`, by rounding."""


Formula = tuple[Rule, Scalars]
"""A rule, and the numbers that it reads."""


class Guard:
    """Says of one step whether its gradients are finite, and what the rule multiplies them to.

    Gradients that are all on one asynchronous device are tested there, without a sync. Others are measured on the host;
    `refuses` says whether one of them is not finite. So are all where several processes decide together.

    Parameters
    ----------
    policy : {"skip", "raise"}
        What becomes of a step that is refused. The host waits once for each device to raise.
    gradients : mapping of hashable to array
        By parameter name, as a rule may see them.

    Raises
    ------
    FloatingPointError
        One is not finite, and that is to be raised.
    TypeError
        So it is, and one is a Dask array, which has no values yet.
    """

    def __init__(self, policy: str, gradients: Mapping[Hashable, Array]) -> None:
        self._policy = policy
        self._gradients = gradients
        self._sizes: dict[Hashable, float] = {}
        places = _by_place(gradients)
        is_one = policy == "skip" and len(places) == 1 and not is_together()
        self._place = next(iter(places)) if is_one else None
        self.refuses = False
        if self._place is not None and self._place.lazy:
            return
        self._place = None
        for place, names in places.items():
            if policy == "raise" and place.library.name == "dask":
                raise TypeError(
                    f"gradient of {show(names[0])} is a Dask array, which has no values yet, and nonfinite='raise' "
                    f"needs them; use nonfinite='skip', which decides when it is computed"
                )
            self._sizes.update(zip(names, place.sizes([gradients[name] for name in names]), strict=True))
        infinite = [name for name, size in self._sizes.items() if not math.isfinite(size)]
        self.refuses = any_of_all(self._refuse(infinite, "not finite"))

    def proceed(
        self,
        formulas: Mapping[Any, Formula],
        of: Mapping[Hashable, Any],
        params: Callable[[], Mapping[Hashable, Array]],
        entries: Mapping[Hashable, Any],
    ) -> Any:
        """Say whether the step is to be made, one that is not refused so far.

        Parameters
        ----------
        formulas : mapping of object to (Rule, Scalars)
            The formula and the numbers of the step for each group and count.
        of : mapping of hashable to object
            Which of them each parameter has.
        params : callable
            Returns the parameters, of which the size matters to some transforms.
        entries : mapping of hashable to object
            What the cache holds, by name.

        Returns
        -------
        None, False or array of shape ()
            None to go on, False to leave the step out, an array of bool where the device decides.

        Raises
        ------
        FloatingPointError
            It is not, and that is to be raised.
        """
        each = [(one, h) for rule, h in formulas.values() for one in rule.among or (rule,)]
        finite = all_finite(formulas, of, self._gradients, entries) if any(sizes_of(one, h) for one, h in each) else {}
        own = (formulas[of[name]] for name in self._gradients)
        if self._place is not None:
            return self._decided_at(self._place, self._limits(own, params), finite)
        beyond: list[Hashable] = []
        if finite or not self._are_small(each):
            limits = self._limits(own, params)
            beyond = [
                name
                for name, size in self._sizes.items()
                if not self._is_within(name, size, *limits[name]) or not finite.get(name, True)
            ]
        rules = ", ".join(dict.fromkeys(formulas[of[name]][0].name for name in beyond))
        refused = self._refuse(beyond, f"too large for the products of {rules}")
        return False if any_of_all(refused) else None

    def _are_small(self, formulas: Sequence[Formula]) -> bool:
        """Return whether no gradient is larger than any of the formulas takes."""
        if any(rule.limit is not None for rule, _ in formulas):
            return False
        lowest = min((limit(rule, h, "float32") for rule, h in formulas), default=0.0)
        return max(self._sizes.values(), default=-1.0) <= lowest

    def _limits(
        self, formulas: Iterable[Formula], params: Callable[[], Mapping[Hashable, Array]]
    ) -> dict[Hashable, tuple[float | Array, float | None]]:
        """Return the largest magnitude that each gradient may have, and the norm to which it is clipped before."""
        each = zip(self._gradients, formulas, strict=True)
        return {name: (self._limit(rule, h, name, params), _bound_of(rule, h)) for name, (rule, h) in each}

    def _limit(
        self, rule: Rule, h: Scalars, name: Hashable, params: Callable[[], Mapping[Hashable, Array]]
    ) -> float | Array:
        """Return the largest magnitude that a gradient may have; on the device, where that depends on the parameter."""
        grad = self._gradients[name]
        rule = rule.chosen(dtype_text(grad.dtype), tuple(grad.shape))
        largest = limit(rule, h, _compute(grad))
        return largest if rule.limit is None else rule.limit(h, largest, lambda: self._size(params()[name]))

    def _decided_at(self, place: _Place, limits: Mapping[Hashable, Any], finite: Mapping[Hashable, Array]) -> Array:
        """Return what the device decides, an array of bool."""
        within = place.together(list(self._gradients.values()), *map(list, zip(*limits.values(), strict=True)))
        library = place.library
        return _all(library)(_stacked(library)(within, *finite.values())) if finite else within

    def _size(self, param: Array) -> float | Array:
        library = library_of(param)
        assert library is not None
        return _largest(library)(param) if self._place is not None else float(_largest(library)(param))

    def _is_within(self, name: Hashable, size: float, largest: Any, clip_norm: float | None) -> bool:
        if size <= largest or (clip_norm is not None and clip_norm * _SAFE <= largest):
            return True
        grad = self._gradients[name]
        library = library_of(grad)
        assert library is not None
        if clip_norm is None:
            return float(_largest(library)(grad)) <= largest
        return bool(_within(library)(grad, largest, clip_norm))

    def _refuse(self, names: Sequence[Hashable], what: str) -> bool:
        """Return whether there are any names, if that is no error."""
        if names and self._policy == "raise":
            listed = [show(name) for name in names]
            listed = [*listed[:_SHOWN], *(["..."] if len(listed) > _SHOWN else [])]
            raise FloatingPointError(
                f"{what}: the gradient of {', '.join(listed)} ({len(names)} of {len(self._gradients)}). Nothing has "
                f"changed; nonfinite='skip' skips such steps"
            )
        return bool(names)


def _bound_of(rule: Rule, h: Scalars) -> float | None:
    """Return the largest norm of a gradient, if a rule sees it clipped as it came."""
    # what a transform has made of it is smaller; as it came, it is within the limits, or refused
    measured = any(one.measured is not None for one in rule.among or (rule,))
    return None if measured else h.clip_norm


class _Place(NamedTuple):
    """Where gradients are."""

    library: Library
    device: str
    lazy: bool  # whether the host goes on while work is done there

    def sizes(self, grads: Sequence[Array]) -> Sequence[float]:
        """Return a bound of the magnitudes in each, which is not finite if an element is not; the host waits once."""
        if self.library.name == "numpy":
            return list(map(_bound, grads))
        sizes = [_largest(self.library)(grad) for grad in grads]
        if not self.lazy:
            return list(map(float, sizes))
        (values,) = self.library.to_numpy([_stacked(self.library)(*sizes)])
        return values.tolist()

    def together(
        self, grads: Sequence[Array], limits: Sequence[float | Array], bounds: Sequence[float | None]
    ) -> Array:
        """Return a bool array of shape (), whether all, clipped to their bounds, are within limits, without a sync."""
        limits = [
            math.inf if bound is not None and isinstance(x, float) and bound * _SAFE <= x else x
            for x, bound in zip(limits, bounds, strict=True)
        ]
        clipped = [
            bound is not None and not (isinstance(x, float) and x == math.inf)
            for x, bound in zip(limits, bounds, strict=True)
        ]
        known = [x for x in limits if isinstance(x, float)]
        fused = self.library.name == "cupy" and choose.chosen() != "eager"
        if fused and not any(clipped) and len(known) == len(limits):
            found = cuda_finite.all_within([self.library.reals(grad) for grad in grads], known)
            if found is not None:
                return found
        within = _within(self.library)
        flags = [
            within(grad, largest, bound if is_clipped else None)
            for grad, largest, bound, is_clipped in zip(grads, limits, bounds, clipped, strict=True)
        ]
        return _all(self.library)(_stacked(self.library)(*flags))


def _by_place(gradients: Mapping[Hashable, Array]) -> dict[_Place, list[Hashable]]:
    places: dict[_Place, list[Hashable]] = {}
    for name, grad in gradients.items():
        library = library_of(grad)
        assert library is not None
        place = _Place(library, library.place(grad), library.is_lazy(grad))
        places.setdefault(place, []).append(name)
    return places


def _compute(grad: Array) -> str:
    return "float64" if real_of(dtype_text(grad.dtype)) == "float64" else "float32"


@functools.cache
def _within(library: Library) -> Callable[[Array, float | Array, float | None], Array]:
    """Return what says whether all elements of a gradient are finite and, clipped if it is to be, within a limit."""
    xp = library.xp

    def within(grad: Array, largest: float | Array, clip_norm: float | None) -> Array:
        grad = library.reals(grad)
        wide = xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)  # CuPy cannot ask a bfloat16
        if clip_norm is not None:
            wide = clip(xp, wide, clip_norm, float64=library.has_float64(wide))
        is_any = isinstance(largest, float) and largest >= LARGEST[_compute(grad)]
        return xp.all(xp.isfinite(wide) if is_any else xp.abs(wide) <= largest)

    return library.guard(within)


@functools.cache
def _largest(library: Library) -> Callable[[Array], Any]:
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
def _stacked(library: Library) -> Callable[..., Array]:
    return library.guard(lambda first, *others: library.xp.stack([first, *others]))


@functools.cache
def _all(library: Library) -> Callable[[Array], Array]:
    return library.guard(library.xp.all)
