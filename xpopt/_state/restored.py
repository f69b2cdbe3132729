"""Entries that come from outside, or go there: whether they can be the state of a parameter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.library import PAIRS, Library, real_of
from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._graph.rule import MASTER, Rule
from .._graph.slots import LIKE, narrower
from .entry import outline, unpack


def left_by(rule: Rule, entry: Any, dtype: str | None, shape: tuple[int, ...] | None) -> Rule:
    """Return the rule that left an entry: of those that `rule` stands for, the one for its parameter.

    Parameters
    ----------
    rule : Rule
        The optimizer's.
    entry : array or dict
        Of a parameter.
    dtype, shape
        Of the parameter; None where they are not known, and taken to be those of the slots.

    Returns
    -------
    Rule
        The rule, for parameters of 16 bits without a master copy.
    """
    if not rule.among:
        return rule
    for x in entry.values() if isinstance(entry, dict) else [entry]:
        if library_of(x) is not None:
            dtype, shape = dtype or dtype_text(x.dtype), tuple(x.shape) if shape is None else shape
    return rule.chosen(dtype or "float32", shape or ())


def check_entry(rule: Rule, entry: Any, name: Hashable, converted: str | None = None) -> None:
    """Raise unless an entry can be restored as the state of a parameter: its form, its arrays, and these alike.

    Parameters
    ----------
    rule : Rule
        Of which it is to be the state.
    entry : array or dict
        The entry.
    name : hashable
        The parameter's name, for messages.
    converted : str, optional
        The dtype of the parameter's arithmetic, where the next update converts what other settings made. Then the
        arrays may be of any dtype that is no wider.

    Raises
    ------
    ValueError
        It cannot.
    """
    for one in rule.among[:-1]:  # which of them, its parameter says
        try:
            check_entry(one, entry, name, converted)
        except ValueError:
            continue
        return
    if rule.low and isinstance(entry, dict) and MASTER in entry:
        rule, *_ = rule.low.values()
    _, slots = unpack(rule, entry, name)
    held = {field: x for field, x in zip(rule.fields, slots or (), strict=slots is not None) if x is not None}
    if isinstance(entry, dict):  # what is to be dropped may be saved before that
        held |= {field: x for field, x in entry.items() if field not in held and field != "t"}
    for field, slot in held.items():
        library, wanted = library_of(slot), ["float32", "float64", *PAIRS]
        if field in rule.fields and (spec := rule.specs[rule.fields.index(field)]).dtype is not None:
            wanted = list(dict.fromkeys(spec.dtype_for(compute) for compute in ("float64", *PAIRS)))
        if converted is not None:
            wanted = narrower(converted)
        if library is None or library.dtype_name(slot.dtype) not in wanted:
            raise ValueError(
                f"cache of {show(name)} holds {field!r} as {outline(slot)}; wanted an array of {' or '.join(wanted)}"
            )
    alike = {field: x for field, x in held.items() if field in rule.fields or field == MASTER}
    _check_alike(rule, alike, name, of_one_dtype=converted is None)


def _check_alike(rule: Rule, held: Mapping[str, Any], name: Hashable, *, of_one_dtype: bool) -> None:
    """Raise a ValueError unless some slots are of one library, dtype and device, and their shapes fit together.

    A slot may state a shape, a dtype or both, which are then its own.
    """
    specs = dict(zip(rule.fields, rule.specs, strict=True))
    usual = [field for field in held if of_one_dtype and specs.get(field, LIKE).dtype is None]
    like = next((field for field in held if specs.get(field, LIKE).shape is None), None)
    shapes = None if like is None else dict(zip(rule.fields, rule.shapes(tuple(held[like].shape)), strict=True))
    first: str | None = like
    for field, slot in held.items():
        first = first or field
        shape = tuple(slot.shape)
        wanted = shape if shapes is None else shapes.get(field, tuple(held[first].shape))
        apart = _home(held[first]) != _home(slot)  # asked first, for dtypes of two libraries do not compare
        if apart or shape != wanted or (field in usual and _part(slot) != _part(held[usual[0]])):
            raise ValueError(
                f"cache of {show(name)} holds {first!r} as {outline(held[first])} on {_home(held[first])[1]}, and "
                f"{field!r} as {outline(slot)} on {_home(slot)[1]}; wanted slots of one library, dtype and device, "
                f"and of {'one shape' if wanted == tuple(held[first].shape) else f'shape {wanted}'}"
            )


def _part(x: Any) -> str:
    """Return the name of the dtype of an array, of a complex one that of its parts: slots of both kinds go together."""
    return real_of(dtype_text(x.dtype))


def _home(x: Any) -> tuple[Library, str]:
    """Return library and device of an array."""
    library = library_of(x)
    assert library is not None
    return library, "several devices" if library.is_spread(x) else library.place(x)
