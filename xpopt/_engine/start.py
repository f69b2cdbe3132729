"""Slots that are made from nothing, as their rule says how they start."""

from __future__ import annotations

from typing import Any

from .._arrays.elements import PerElement
from .._arrays.library import Library, is_complex
from .._arrays.parameter import Spec, dtype_text
from .._arrays.typing import Array, Scalars
from .._graph.rule import Rule
from .._graph.slots import Slot
from .tensor import Tensor


def started(library: Library, spec: Spec, rule: Rule, param: Array, h: Scalars, held: Any = None) -> list[Any]:
    """Return the slots of a parameter, those that it lacks new; to be called where the library computes.

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
    held : NamedTuple of array, or None
        The slots that it has, with None for those that it lacks.

    Returns
    -------
    list of array
        The new ones in memory of their own.
    """
    xp, slots = library.xp, []
    held = (None,) * len(rule.fields) if held is None else held
    for x, field, one, shape in zip(held, rule.fields, rule.specs, rule.shapes(spec.shape), strict=True):
        if x is not None:
            slots.append(x)
            continue
        if one.constant:
            slots.append(constant(library, spec, one, param, h))
            continue
        try:
            number, dtype = one.number(h), dtype_of(library, spec, one)
        except TypeError as error:
            raise TypeError(f"{rule.owner}: the slot {field!r} cannot be made: {error}") from None
        if number is None:
            slots.append(xp.astype(param, dtype, copy=True))
        else:
            slots.append(library.full(shape, in_parts(number, dtype), dtype, param))
    return slots


def dtype_of(library: Library, spec: Spec, slot: Slot) -> Any:
    """Return the dtype of a slot of a parameter."""
    if slot.is_like:
        return spec.compute
    return library.dtype(slot.dtype_for(dtype_text(spec.compute)))


def in_parts(number: float, dtype: Any) -> complex:
    """Return the number of which all parts are `number`: both of a complex one."""
    return complex(number, number) if is_complex(dtype) else number


def constant(library: Library, spec: Spec, slot: Slot, param: Array, h: Scalars) -> Any:
    """Return the numbers of a setting as an array like a parameter, in the dtype of its arithmetic."""
    values: PerElement = getattr(h, slot.start)
    like = library.xp.astype(param, spec.compute, copy=False)
    numbers = values.numbers(dtype_text(spec.dtype))
    return library.from_numpy(numbers * (1 + 1j) if spec.parts == 2 else numbers, like)


def complete(tensor: Tensor) -> None:
    """Let slots that a parameter has not, since another rule updated it before or they are no state, start now."""
    slots = tensor.slots
    if slots is None or not any(x is None for x in slots):
        return
    rule, library = tensor.rule, tensor.library
    new = library.guard(lambda param: started(library, tensor.spec, rule, param, tensor.h, slots))(tensor.param)
    tensor.slots = rule.make_slots(new)
