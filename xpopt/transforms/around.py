"""Rules of rules: what transforms do before and after a rule, as one function that is traced and printed like any."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots, Rule, taken_apart
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
    function: Any = functools.wraps(rule.function)(_function(rule, pieces, first))
    function.__module__ = next((p.module for p in pieces if not p.module.startswith(PACKAGE)), rule.function.__module__)
    return dataclasses.replace(
        rule,
        function=function,
        slots=_slots(rule, pieces),
        scalars=scalars,
        inner=rule,
        measured=_measured(pieces[:first]) if first else None,
        limit=_limit(pieces),
    )


class _Numbers:
    """The numbers of a step as one transform reads them, by its own names."""

    __slots__ = ("_h", "_number")

    def __init__(self, h: Scalars, piece: Piece) -> None:
        self._h = h
        self._number = piece.number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._h, name if name in ("lr", "t") else self._number(name))


def _function(rule: Rule, pieces: tuple[Piece, ...], first: int) -> Callable[..., tuple[Array, tuple[Array, ...]]]:
    """Return the function of a rule with pieces around it, of which the first have seen the gradient already."""
    counts = [len(piece.slots._fields) for piece in pieces]

    def function(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        own = len(s) - sum(counts)
        taken = iter(s[own:])
        mine = [piece.slots._make([next(taken) for _ in piece.slots._fields]) for piece in pieces]
        numbers = [_Numbers(h, piece) for piece in pieces]
        given = []
        for i, piece in enumerate(pieces):
            given.append((param, grad))
            if piece.before is not None and i >= first:
                param, grad = _passed_on(piece.before(xp, param, grad, mine[i], numbers[i]), param)
        new, *slots = taken_apart(rule, rule.function(xp, param, grad, rule.make_slots(s[:own]), h))
        for i, piece in reversed(list(enumerate(pieces))):
            if piece.after is not None:
                new, mine[i] = _left(piece, piece.after(xp, new, *given[i], mine[i], numbers[i]))
        return new, (*slots, *(slot for state in mine for slot in state))

    return function


def _measured(pieces: tuple[Piece, ...]) -> Callable[..., Array]:
    """Return what the first pieces make of a gradient."""

    def measured(xp: Namespace, param: Array, grad: Array, h: Scalars) -> Array:
        for piece in pieces:
            if piece.before is not None:
                grad = piece.before(xp, param, grad, NoSlots(), _Numbers(h, piece))
        return grad

    return measured


def _passed_on(returned: Any, param: Array) -> tuple[Array, Array]:
    return returned if isinstance(returned, tuple) else (param, returned)


def _left(piece: Piece, returned: Any) -> tuple[Array, Any]:
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
    if not having:
        return rule.scalars

    def scalars(h: Scalars) -> Mapping[str, float]:
        found = dict(rule.scalars(h)) if rule.scalars is not None else {}
        for piece in having:
            assert piece.scalars is not None
            for name, value in piece.scalars(_Numbers(h, piece)).items():
                found[piece.number(name)] = value
        return found

    return scalars


def _slots(rule: Rule, pieces: Sequence[Piece]) -> type[Any]:
    """Return the class of the state of a rule and of what is around it."""
    fields = list(rule.fields)
    for piece in pieces:
        for name in piece.slots._fields:
            if name in fields:
                raise TypeError(f"{piece.name} has a slot {name!r}, and {rule.name} or another transform has one too")
            fields.append(name)
    return rule.slots if len(fields) == len(rule.fields) else namedtuple(rule.slots.__name__, fields)


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
