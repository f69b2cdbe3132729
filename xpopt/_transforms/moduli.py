"""One second moment for both parts of a complex parameter: a rule whose products of two vectors are inner products."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

from .._arrays.library import PAIRS
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule, taken_apart
from .._graph.slots import moduli, one, state_class

_WHOLE = "modulus=True computes with both parts of a complex number together"


def with_moduli(rule: Rule, moments: Collection[str]) -> Rule:
    r"""Return the rule that takes, for a complex parameter, :math:`|z|^2` for each square of :math:`z`.

    Parameters
    ----------
    rule : Rule
        An elementwise rule.
    moments : collection of str
        Its slots that are made of squares, or of magnitudes: real numbers then, one for each element.

    Returns
    -------
    Rule
        The same for real parameters; made once for each rule.
    """
    found: Rule | None = rule.made.get("moduli")
    if found is None:  # one, whichever thread makes it
        several = [version for each in rule.among or (rule,) for version in (_of_complex(each, moments), each)]
        found = rule.made.setdefault("moduli", dataclasses.replace(several[-1], among=tuple(several)))
    return found


def _of_complex(rule: Rule, moments: Collection[str]) -> Rule:
    forms = list(zip(rule.fields, rule.specs, strict=True))

    @functools.wraps(rule.function)
    def of_pairs(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        def seen(x: Any, field: str, spec: Any) -> _Value:
            return _Value(xp, x, False) if spec.shape is one else _Value(xp, x, True).number(field not in moments)

        slots: list[Any] = [seen(x, *form) for x, form in zip(s, forms, strict=True)]
        returned = rule.function(
            _Functions(xp), _Value(xp, param, True), _Value(xp, grad, True), rule.make_slots(slots), h
        )
        new, *new_slots = taken_apart(rule, returned)
        for x, field in zip(new_slots, rule.fields, strict=True):
            if field in moments and x.is_pair:
                raise TypeError(f"{rule.name} returned {field!r} as pairs, and it is among the moments of its class")
        pairs = [
            x.data if spec.shape is one else x.spread(param) for x, (_, spec) in zip(new_slots, forms, strict=True)
        ]
        return new.spread(param), rule.make_slots(pairs)

    def where(dtype: str, shape: tuple[int, ...]) -> bool:
        return dtype in PAIRS and (rule.where is None or rule.where(dtype, shape))

    specs = {field: spec._replace(shape=moduli) if field in moments else spec for field, spec in forms}
    state = state_class(rule.slots.__name__, specs)
    return dataclasses.replace(rule, function=of_pairs, slots=state, where=where, fused=False, whole=_WHOLE)


class _Value:
    """What such a rule sees as an array: a pair for each element, or one number for each.

    Parameters
    ----------
    xp : Namespace
        The functions of the library.
    data : array
        With a last axis of length 2 or 1; of any shape where it is one number for all.
    is_pair : bool
        Whether it is pairs.
    """

    __array_ufunc__ = None  # so that NumPy's arrays leave operators to this class

    def __init__(self, xp: Namespace, data: Any, is_pair: bool) -> None:
        self._xp, self.data, self.is_pair = xp, data, is_pair

    def number(self, is_pair: bool) -> _Value:
        """Return itself, or if it is no pairs the number that both parts are."""
        return self if is_pair else _Value(self._xp, self.data[..., :1], False)

    def spread(self, like: Array) -> Array:
        """Return it as pairs, both parts alike where it is numbers."""
        spread: Array = self.data if self.is_pair else self._xp.broadcast_to(self.data, like.shape)
        return spread

    def inner(self, other: _Value) -> _Value:
        """Return the inner product of two pairs."""
        return _Value(self._xp, self._xp.sum(self.data * other.data, axis=-1, keepdims=True), False)

    def _taken(self, other: Any) -> Any:
        """Return an operand: numbers of each element, such as rates, are the same for both parts."""
        if isinstance(other, _Value) or not getattr(other, "shape", ()):
            return other
        return _Value(self._xp, other, True).number(False)

    def _with(self, other: Any, operate: Callable[[Any, Any], Any], *, mixes: bool = True) -> _Value:
        other = self._taken(other)
        pairs = self.is_pair, isinstance(other, _Value) and other.is_pair
        if any(pairs) and not mixes:
            raise TypeError("a rule orders or divides by complex numbers, which modulus=True has no meaning for")
        return _Value(self._xp, operate(self.data, other.data if isinstance(other, _Value) else other), any(pairs))

    def __mul__(self, other: Any) -> _Value:
        other = self._taken(other)
        if self.is_pair and isinstance(other, _Value) and other.is_pair:
            return self.inner(other)
        return self._with(other, lambda x, y: x * y)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x + y)

    __radd__ = __add__

    def __sub__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x - y)

    def __rsub__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: y - x)

    def __truediv__(self, other: Any) -> _Value:
        other = self._taken(other)
        by_pair = isinstance(other, _Value) and other.is_pair
        return self._with(other, lambda x, y: x / y, mixes=not by_pair)

    def __rtruediv__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: y / x, mixes=not self.is_pair)

    def __pow__(self, power: Any) -> _Value:
        if self.is_pair and power == 2:
            return self.inner(self)
        return self._with(power, lambda x, y: x**y, mixes=False)

    def __neg__(self) -> _Value:
        return _Value(self._xp, -self.data, self.is_pair)

    def __abs__(self) -> _Value:
        if self.is_pair:
            return _Value(self._xp, self._xp.hypot(self.data[..., :1], self.data[..., 1:]), False)
        return _Value(self._xp, self._xp.abs(self.data), False)

    def __lt__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x < y, mixes=False)

    def __le__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x <= y, mixes=False)

    def __gt__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x > y, mixes=False)

    def __ge__(self, other: Any) -> _Value:
        return self._with(other, lambda x, y: x >= y, mixes=False)


_OF_EACH_PART = ("clip", "where")
"""Functions that do the same to both parts of a pair; others take numbers alone."""


class _Functions:
    """The functions that such a rule sees."""

    def __init__(self, xp: Namespace) -> None:
        self._xp = xp
        self.abs = abs

    def square(self, x: _Value) -> _Value:
        """Return the square of a magnitude."""
        return x * x

    def __getattr__(self, name: str) -> Callable[..., _Value]:
        function = getattr(self._xp, name)

        def call(*args: Any) -> _Value:
            is_pair = any(isinstance(x, _Value) and x.is_pair for x in args)
            if is_pair and name not in _OF_EACH_PART:
                raise TypeError(f"a rule takes xp.{name} of complex numbers, which modulus=True has no meaning for")
            return _Value(self._xp, function(*(x.data if isinstance(x, _Value) else x for x in args)), is_pair)

        return call
