"""Master copies: parameters of 16 bits that are also kept, and updated, in the precision of their arithmetic."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import MASTER, Rule, taken_apart
from .._graph.slots import LIKE, state_class


def with_masters(rule: Rule) -> Rule:
    """Return the rule that updates a float32 master copy of each 16-bit parameter.

    The copy is one more slot, and starts as zeros like every slot. A parameter that is not what its copy rounds to was
    set by the caller, as every new one was; the update then starts from the parameter. The test is exact: even a
    one-ulp edit counts.

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
        made: Rule = rule.made["masters"]
    except KeyError:
        made = rule.made.setdefault("masters", _with_masters(rule))  # one, whichever thread makes it
    return made


def _with_masters(rule: Rule) -> Rule:
    if rule.among:
        *before, last = (with_masters(one) for one in rule.among)
        return dataclasses.replace(last, among=(*before, last))
    if MASTER in rule.fields:
        raise TypeError(
            f"{rule.name} has a slot {MASTER!r} of its own, where master=True would keep its copies; "
            f"give the slot another name"
        )
    low = {dtype: _of_copy(rule.low.get(dtype, rule), as_param) for dtype, as_param in _CONVERSIONS.items()}
    return dataclasses.replace(rule, low={**rule.low, **low})


def _of_copy(rule: Rule, as_param: Callable[[Namespace, Array], Array]) -> Rule:
    def copy_of(xp: Namespace, param: Array, s: Any) -> Array:
        copy: Array = xp.where(as_param(xp, s.master) == param, s.master, param)
        return copy

    @functools.wraps(rule.function)
    def of_copy(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        master = copy_of(xp, param, s)
        master, *slots = taken_apart(rule, rule.function(xp, master, grad, rule.make_slots(s[:-1]), h))
        return master, (*slots, master)

    def measured(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        assert rule.measured is not None
        return rule.measured(xp, copy_of(xp, param, s), grad, s[:-1], h)

    def evaluated(xp: Namespace, param: Array, s: Any, h: Scalars) -> Array:
        assert rule.evaluated is not None
        return rule.evaluated(xp, copy_of(xp, param, s), rule.make_slots(s[:-1]), h)

    slots = state_class(rule.slots.__name__, {**dict(zip(rule.fields, rule.specs, strict=True)), MASTER: LIKE})
    return dataclasses.replace(
        rule,
        function=of_copy,
        slots=slots,
        added=rule.added + 1,
        measured=None if rule.measured is None else measured,
        evaluated=None if rule.evaluated is None else evaluated,
    )


# A rule knows no dtypes, so what a conversion to 16 bits and back does is written in the arithmetic of float32


def _as_float16(xp: Namespace, x: Array) -> Array:
    rounded: Array = _rounded(xp, x, 11, 2.0**-14) * 2.0**112 * 2.0**-112  # from 2**16 on it is infinite
    return rounded


def _as_bfloat16(xp: Namespace, x: Array) -> Array:
    return _rounded(xp, x, 8, 2.0**-126)


_CONVERSIONS = {"float16": _as_float16, "bfloat16": _as_bfloat16}


def _rounded(xp: Namespace, x: Array, digits: int, smallest: float) -> Array:
    """Round to so many binary digits, half to even, and from the power of two `smallest` down to as many places."""
    half = x * (0.5 + 2.0**-24)
    power = xp.abs(half - half * (1 - 2.0**-24)) * 2.0**24  # of two, the largest in x: Rump's unit in the first place
    unit = xp.maximum(power, smallest)
    shift = 1.5 * 2.0 ** (24 - digits)  # beside which a number has room for those digits alone
    rounded: Array = (x / unit + shift - shift) * unit
    return rounded
