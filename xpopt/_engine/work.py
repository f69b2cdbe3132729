"""What an engine is given, and what it gives back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._library import Library
from .._parameter import Spec
from .._rule import Rule
from .._typing import Array, Scalars

Result = tuple[Array, Any]
"""A new parameter and the NamedTuple of its new slots."""


class Launch(NamedTuple):
    """Updates for which everything that can fail has been done."""

    results: list[Result]  # the very arrays that hold the results once `finish` has been called
    finish: Callable[[], None]  # writes; nothing in it can fail
    engine: str = ""  # that runs all of it


class Work(NamedTuple):
    """One update of one parameter, checked and ready to be computed."""

    library: Library
    spec: Spec
    param: Any  # arrays of that library, both
    grad: Any
    slots: Any  # the rule's NamedTuple, or None to start from zeros
    owned: bool  # whether the slots are the optimizer's own arrays, which may be written
    h: Scalars
    out: Any  # where the result goes; None for a new array


make_work: Callable[[tuple[Any, ...]], Work] = functools.partial(tuple.__new__, Work)
"""Make a work of its fields, at half the cost of a call of the class."""


def new_arrays(rule: Rule, work: Work) -> Result:
    """Allocate what an update of a NumPy array needs, to be written: a result if there is no `out`, and slots.

    Parameters
    ----------
    rule : Rule
        The formula.
    work : Work
        The update.

    Returns
    -------
    out : ndarray
        Where the new parameter goes.
    slots : NamedTuple of ndarray
        The state before the update, in arrays that may be written.
    """
    _, spec, param, _, slots, owned, _, out = work
    if out is None:
        out = np.empty_like(param)
    if slots is None:
        slots = rule.make_slots([np.zeros_like(param, spec.compute) for _ in rule.fields])
    elif not owned:
        slots = rule.make_slots([np.array(x) for x in slots])
    return out, slots
