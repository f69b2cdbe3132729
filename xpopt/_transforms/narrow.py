"""Narrower slots: those that are like the parameter, kept in fewer bits than the arithmetic has."""

from __future__ import annotations

import dataclasses

from .._graph.rule import Rule
from .._graph.slots import PARAM, state_class


def with_slots_of(rule: Rule, dtype: str) -> Rule:
    """Return the rule that keeps its slots in a dtype.

    Parameters
    ----------
    rule : Rule
        Any rule.
    dtype : str
        For each slot that is like the parameter, states no dtype of its own, and does not start as the parameter: such
        a one holds parameters, whose steps are too small for 16 bits.

    Returns
    -------
    Rule
        The same, with another state; one and the same for each dtype.
    """
    key = "slots of", dtype
    found: Rule | None = rule.made.get(key)
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(key, _with_slots_of(rule, dtype))
    return found


def _with_slots_of(rule: Rule, dtype: str) -> Rule:
    if rule.among:
        *before, last = (_with_slots_of(one, dtype) for one in rule.among)
        return dataclasses.replace(last, among=(*before, last))
    if not rule.fields:
        return rule
    slots = {
        field: spec._replace(dtype=dtype) if spec.is_like and spec.start != PARAM else spec
        for field, spec in zip(rule.fields, rule.specs, strict=True)
    }
    state = state_class(rule.slots.__name__, slots)
    low = {of: dataclasses.replace(one, slots=state) for of, one in rule.low.items()}  # of the same slots
    return dataclasses.replace(rule, slots=state, low=low)
