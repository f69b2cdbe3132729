"""Master copies: parameters of 16 bits that are also kept, and updated, in the precision of their arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from typing import Any

from ._rule import MASTER, Rule, taken_apart
from ._typing import Array, Namespace, Scalars

_NEAR = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
"""How far a number is at most from what it rounds to: relative to itself, and where the result is subnormal."""


def with_masters(rule: Rule) -> Rule:
    """Return a rule that does the same, and updates a master copy of each parameter of 16 bits.

    The copy is one more slot. Like every slot it starts as zeros; a parameter that is not what its copy rounds to has
    been set by somebody else, as every new one has, and is then where the update starts from.

    Parameters
    ----------
    rule : Rule
        Any rule without a slot ``master``.

    Returns
    -------
    Rule
        The same, but for parameters of 16 bits.

    Raises
    ------
    TypeError
        The rule has such a slot.
    """
    try:
        return _made[rule]
    except KeyError:
        return _made.setdefault(rule, _with_masters(rule))  # one, whichever thread makes it


def _with_masters(rule: Rule) -> Rule:
    if MASTER in rule.fields:
        raise TypeError(f"{rule.name} has a slot {MASTER!r} of its own, where master=True would keep its copies")
    return dataclasses.replace(rule, low={dtype: _of_copy(rule, *near) for dtype, near in _NEAR.items()})


_made: dict[Rule, Rule] = {}


def _of_copy(rule: Rule, relative: float, absolute: float) -> Rule:
    @functools.wraps(rule.function)
    def of_copy(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        away = xp.abs(param - s.master)
        rounds_to_param = xp.logical_or(away <= relative * xp.abs(s.master), away <= absolute)
        master = xp.where(rounds_to_param, s.master, param)
        master, *slots = taken_apart(rule, rule.function(xp, master, grad, rule.make_slots(s[:-1]), h))
        return master, (*slots, master)

    slots = namedtuple(rule.slots.__name__, [*rule.fields, MASTER])  # type: ignore[misc]
    return dataclasses.replace(rule, function=of_copy, slots=slots, master=True)
