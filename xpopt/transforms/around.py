"""Rules of rules: what transforms do before and after a rule, as one function that is traced and printed like any."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._arrays.parameter import dtype_text
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule, taken_apart
from .._graph.slots import Slot, specs_of, state_class
from .._graph.trace import InPlaceError, UntraceableError, called
from .._settings.caller import PACKAGE
from .base import Piece


def transformed(rule: Rule, pieces: tuple[Piece, ...], *, clipped: bool) -> Rule:
    """Return the rule with transforms around it, one and the same for equal pieces.

    Parameters
    ----------
    rule : Rule
        Any rule.
    pieces : tuple of Piece
        The outermost first: in this order they come before the rule, and in the reverse order after it.
    clipped : bool
        Whether the gradient is clipped by its norm, which is taken after the last piece that asks for it.

    Returns
    -------
    Rule
        `rule` itself where there are no pieces.

    Raises
    ------
    TypeError
        Two slots have one name.
    """
    if not pieces:
        return rule
    first = 1 + max((i for i, piece in enumerate(pieces) if piece.measured), default=-1) if clipped else 0
    key = "transformed", pieces, first
    found: Rule | None = rule.made.get(key)
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(key, _transformed(rule, pieces, first, _scalars(rule, pieces)))
    return found


def _transformed(rule: Rule, pieces: tuple[Piece, ...], first: int, scalars: Any) -> Rule:
    if rule.among:
        *before, last = (_transformed(one, pieces, first, scalars) for one in rule.among)
        return dataclasses.replace(last, among=(*before, last))
    low = (
        {dtype: _around(rule, pieces, first, scalars, dtype) for dtype in _ROUNDED}
        if any(p.rounded for p in pieces)
        else {}
    )
    return dataclasses.replace(_around(rule, pieces, first, scalars), low=low)


_ROUNDED = ("float16", "bfloat16", "float32")
"""The dtypes for which some numbers are others than in float64."""


def _around(rule: Rule, pieces: tuple[Piece, ...], first: int, scalars: Any, dtype: str = "") -> Rule:
    """Return a rule with pieces around it, for parameters of a dtype where that matters."""
    function: Any = functools.wraps(rule.function)(_function(rule, pieces, first, dtype))
    function.__module__ = next((p.module for p in pieces if not p.module.startswith(PACKAGE)), rule.function.__module__)
    return dataclasses.replace(
        rule,
        function=function,
        slots=_slots(rule, pieces),
        scalars=scalars,
        added=rule.added + sum(len(piece.slots._fields) for piece in pieces),
        inner=rule,
        measured=_measured(rule, pieces, first, dtype) if first else None,
        limit=_limit(pieces),
        evaluated=_evaluated(rule, pieces, dtype),
    )


class _Numbers:
    """The numbers of a step as one transform reads them, by its own names."""

    __slots__ = ("_dtype", "_h", "_piece")

    def __init__(self, h: Scalars, piece: Piece, dtype: str = "") -> None:
        self._h = h
        self._piece = piece
        self._dtype = dtype

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(self._h, name if name in ("lr", "t") else self._piece.number(name, self._dtype))
        except AttributeError:
            raise AttributeError(
                f"{self._piece.name} reads h.{name}, which is none of its numbers; declare a setting {name!r}, or "
                f"return it from `scalars`"
            ) from None


def _states(rule: Rule, pieces: Sequence[Piece], s: Any) -> list[Any]:
    """Return the slots of each piece, which come after those of the rule."""
    taken = iter(s[len(rule.fields) :])
    return [piece.slots._make([next(taken) for _ in piece.slots._fields]) for piece in pieces]


def _function(
    rule: Rule, pieces: Sequence[Piece], first: int, dtype: str
) -> Callable[..., tuple[Array, tuple[Array, ...]]]:
    """Return the function of a rule with pieces around it, of which the first have seen the gradient already."""
    own = len(rule.fields)

    def function(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        states = _states(rule, pieces, s)
        numbers = [_Numbers(h, piece, dtype) for piece in pieces]
        given = []
        for i, piece in enumerate(pieces):
            given.append((param, grad))
            if piece.before is not None and i >= first:
                returned = _of(piece, "before", xp, param, grad, states[i], numbers[i])
                param, grad = _passed_on(piece, returned, param, grad)
        new, *slots = taken_apart(rule, rule.function(xp, param, grad, rule.make_slots(s[:own]), h))
        _check_like(param, new, rule.name, "param")
        for i, piece in reversed(list(enumerate(pieces))):
            if piece.after is not None:
                returned = _of(piece, "after", xp, new, *given[i], states[i], numbers[i])
                new, states[i] = _taken_apart(piece, returned)
                _check_like(param, new, f"{piece.name}.after", "param")
        return new, (*slots, *(slot for state in states for slot in state))

    return function


def _measured(rule: Rule, pieces: Sequence[Piece], first: int, dtype: str) -> Callable[..., Array]:
    """Return what the first pieces make of a gradient."""

    def measured(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        for piece, state in zip(pieces[:first], _states(rule, pieces, s), strict=False):
            if piece.before is not None:
                returned = _of(piece, "before", xp, param, grad, state, _Numbers(h, piece, dtype))
                passed, grad = _passed_on(piece, returned, param, grad)
                if passed is not param:
                    raise TypeError(
                        f"{piece.name}.before returned a parameter too; wanted the gradient alone, to clip its norm"
                    )
        return grad

    return measured


def _evaluated(rule: Rule, pieces: Sequence[Piece], dtype: str) -> Callable[..., Array] | None:
    """Return what the model is evaluated with: what the outermost piece says that says it, else the rule."""
    own = len(rule.fields)
    place = next((i for i, piece in enumerate(pieces) if piece.evaluated is not None), None)
    if place is None and rule.evaluated is None:
        return None

    def evaluated(xp: Namespace, param: Array, s: Any, h: Scalars) -> Array:
        if place is not None:
            piece, state = pieces[place], _states(rule, pieces, s)[place]
            found: Array = _of(piece, "evaluated", xp, param, state, _Numbers(h, piece, dtype))
            return found
        assert rule.evaluated is not None
        return rule.evaluated(xp, param, rule.make_slots(s[:own]), h)

    return evaluated


def _of(piece: Piece, name: str, *args: Any) -> Any:
    """Return what a method of a piece returns; what cannot be traced in it is told of it."""
    try:
        return getattr(piece, name)(*args)
    except (InPlaceError, UntraceableError) as error:
        raise type(error)(f"{piece.name}.{name}: {error}") from error


def _passed_on(piece: Piece, returned: Any, param: Array, grad: Array) -> tuple[Array, Array]:
    """Return the parameter and the gradient that a piece passes on, if that is what it returned."""
    name = f"{piece.name}.before"
    if returned is None or (isinstance(returned, tuple) and len(returned) != 2):
        came = "None" if returned is None else f"a tuple of {len(returned)}"
        raise TypeError(f"{name} returned {came}; wanted the gradient, or (param, grad)")
    new, passed = returned if isinstance(returned, tuple) else (param, returned)
    _check_like(param, new, name, "param")
    _check_like(grad, passed, name, "grad")
    return new, passed


def _check_like(wanted: Array, x: Any, name: str, what: str) -> None:
    """Raise a TypeError unless `x` is like an array that came in, so that nothing is spread over the parameter."""
    if x is wanted:
        return
    text = called(wanted)
    if text is None:
        if hasattr(x, "dtype") and x.dtype == wanted.dtype and x.shape == wanted.shape:
            return
        text = _described(wanted)
    elif called(x) == text:
        return
    raise TypeError(f"{name} returned {called(x) or _described(x)} as {what!r}; wanted {text}")


def _described(x: Any) -> str:
    return f"{dtype_text(x.dtype)} of shape {tuple(x.shape)}" if hasattr(x, "dtype") else f"a {type(x).__name__}"


def _taken_apart(piece: Piece, returned: Any) -> tuple[Array, Any]:
    """Return the new parameter and the slots that a piece returned, if that is what it returned."""
    fields = piece.slots._fields
    wanted = f"wanted (new, slots), with the slots {', '.join(fields) or '(none)'}"
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"{piece.name}.after returned a {type(returned).__name__}; {wanted}")
    new, slots = returned
    if not isinstance(slots, tuple | list) or len(slots) != len(fields):
        raise TypeError(f"{piece.name}.after returned a {type(slots).__name__} for the slots; {wanted}")
    return new, slots


def _scalars(rule: Rule, pieces: Sequence[Piece]) -> Callable[[Scalars], Mapping[str, float]] | None:
    """Return the further numbers of a rule and of what is around it."""
    having = [piece for piece in pieces if piece.scalars is not None]
    rating = [piece for piece in pieces if piece.rate is not None]
    if not having and not rating:
        return rule.scalars

    def scalars(h: Scalars) -> Mapping[str, float]:
        for piece in rating:  # first, so that what is derived from the rate has the new one
            assert piece.rate is not None
            h.lr = piece.rate(_Numbers(h, piece))
        found = dict(rule.scalars(h)) if rule.scalars is not None else {}
        for piece in having:
            assert piece.scalars is not None
            numbers = piece.scalars(_Numbers(h, piece))
            if not isinstance(numbers, Mapping):
                raise TypeError(f"{piece.name}.scalars returned a {type(numbers).__name__}; wanted a dict of numbers")
            for name, value in numbers.items():
                found[piece.number(name)] = value
        return found

    return scalars


def _slots(rule: Rule, pieces: Sequence[Piece]) -> type[Any]:
    """Return the class of the state of a rule and of what is around it."""
    slots = dict(zip(rule.fields, rule.specs, strict=True))
    for piece in pieces:
        for name, spec in zip(piece.slots._fields, specs_of(piece.slots), strict=True):
            if name in slots:
                raise TypeError(f"{piece.name} has a slot {name!r}, and {rule.name} or another transform has one too")
            slots[name] = spec.with_start(piece.number) if isinstance(spec, Slot) else spec
    return rule.slots if len(slots) == len(rule.fields) else state_class(rule.slots.__name__, slots)


def _limit(pieces: Sequence[Piece]) -> Callable[[Scalars, Any, Callable[[], Any]], Any] | None:
    """Return the way from a limit of what a rule may see to that of the gradient that comes from outside."""
    having = [piece for piece in reversed(pieces) if piece.limit is not None]
    if not having:
        return None

    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        for piece in having:
            assert piece.limit is not None
            largest = piece.limit(_Numbers(h, piece), largest, size)
        return largest

    return limit
