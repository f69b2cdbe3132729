"""What runs between the whole steps of several gradients: a rule that adds a gradient to their sum."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule


def gathering(rule: Rule) -> Rule:
    """Return the rule of the calls between whole steps, which adds a gradient to the sum and leaves all else.

    Parameters
    ----------
    rule : Rule
        That of whole steps, with all that is around it.

    Returns
    -------
    Rule
        Of the same slots; one and the same for each rule.
    """
    found: Rule | None = rule.made.get("gathering")
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault("gathering", _gathering(rule))
    return found


def _gathering(rule: Rule) -> Rule:
    if rule.among:
        *before, last = map(gathering, rule.among)
        return dataclasses.replace(last, among=(*before, last))

    @functools.wraps(rule.function)
    def gather(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        return param, s._replace(grad_sum=s.grad_sum + grad)

    low = {dtype: gathering(one) for dtype, one in rule.low.items()}
    return Rule(
        *(gather, rule.slots),
        where=rule.where,
        follows=rule.follows,
        entry=rule.entry,
        fused=rule.fused,
        added=rule.added,
        low=low,
    )
