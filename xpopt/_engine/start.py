"""Slots that are made from nothing, as their rule says how they start."""

from __future__ import annotations

from typing import Any

from .._arrays.library import Library
from .._arrays.parameter import Spec
from .._arrays.typing import Array, Scalars
from .._graph.rule import Rule
from .tensor import Tensor


def started(library: Library, spec: Spec, rule: Rule, param: Array, h: Scalars) -> list[Any]:
    """Return the slots of a new parameter, to be called where the library computes.

    Parameters
    ----------
    library : Library
        Whose array the parameter is.
    spec : Spec
        What it is.
    rule : Rule
        Whose slots these are.
    param : array
        The parameter, in its own dtype or in that of the arithmetic.
    h : Scalars
        The numbers of the step.

    Returns
    -------
    list of array
        New ones, in memory of their own.
    """
    xp, slots = library.xp, []
    for field, one, shape in zip(rule.fields, rule.specs, rule.shapes(spec.shape), strict=True):
        try:
            number, dtype = one.number(h), spec.compute if one.dtype is None else library.dtype(one.dtype)
        except TypeError as error:
            raise TypeError(f"{rule.owner}: the slot {field!r} cannot be made: {error}") from None
        if number is None:
            slots.append(xp.astype(param, dtype, copy=True))
        else:
            slots.append(library.full(shape, number, dtype, param))
    return slots


def complete(tensor: Tensor) -> None:
    """Let slots that a parameter has not, since another rule updated it before, start now."""
    slots = tensor.slots
    if slots is None or not any(x is None for x in slots):
        return
    rule, library = tensor.rule, tensor.library
    new = library.guard(lambda param: started(library, tensor.spec, rule, param, tensor.h))(tensor.param)
    tensor.slots = rule.make_slots([y if x is None else x for x, y in zip(slots, new, strict=True)])
