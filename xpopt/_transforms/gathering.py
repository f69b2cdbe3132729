"""What runs between the whole steps of several gradients: a rule that adds a gradient to their sum."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from ..transforms.loss_scale import LossScale


def gathering(rule: Rule, *, scaled: bool) -> Rule:
    """Return the rule of the calls between whole steps, which adds a gradient to the sum and leaves all else.

    Parameters
    ----------
    rule : Rule
        That of whole steps, with all that is around it.
    scaled : bool
        Whether gradients are those of a loss that was multiplied by `h.loss_scale`.

    Returns
    -------
    Rule
        Of the same slots; one and the same for each rule.
    """
    key = "gathering", scaled
    found: Rule | None = rule.made.get(key)
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(key, _gathering(rule, scaled))
    return found


def _gathering(rule: Rule, scaled: bool) -> Rule:
    if rule.among:
        *before, last = (gathering(one, scaled=scaled) for one in rule.among)
        return dataclasses.replace(last, among=(*before, last))

    @functools.wraps(rule.function)
    def gather(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        if scaled:
            grad = LossScale.before(xp, param, grad, s, h)
        return param, s._replace(grad_sum=s.grad_sum + grad)

    low = {dtype: gathering(one, scaled=scaled) for dtype, one in rule.low.items()}
    return Rule(
        *(gather, rule.slots),
        where=rule.where,
        follows=rule.follows,
        entry=rule.entry,
        fused=rule.fused,
        whole=rule.whole,
        added=rule.added,
        low=low,
    )
