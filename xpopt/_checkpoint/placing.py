"""The state of each parameter, as a checkpoint has it: where it goes, and in which form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.library import Library, compute_of
from .._arrays.namespace import copy_array, library_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import flatten
from .._arrays.typing import Array, Tree
from .._state.entry import Record, unpack
from .._state.names import array_key
from .._state.restored import check_entry, left_by
from .._state.settings import Settings
from .._state.stored import Stored, dtype_of, moved
from .._transforms.make import slots_of_transforms
from .header import Parameter

Home = tuple[Library, Spec, Array]
"""Where the state of a parameter goes: its library, its description, and the parameter."""


def homes_of(like: Tree) -> dict[Hashable, Home]:
    """Return where the state of each parameter goes."""
    examined = {name: examine(leaf, leaf, name) for name, leaf in flatten(like, "like").items()}
    return {name: (library, spec, param) for name, (library, spec, param, _) in examined.items()}


def entry_of(settings: Settings, parameter: Parameter, name: Hashable, arrays: Mapping[str, Any]) -> Any:
    """Return what the cache holds of a parameter, or raise a ValueError if no rule of the optimizer left it."""
    settings = settings.of(name, parameter.known_shape)
    cls = settings.cls
    fields = cls.slots._fields
    slots = {slot: arrays[array_key(parameter.name, slot)] for slot in parameter.slots}
    rule = left_by(settings.rule, slots, parameter.dtype, parameter.shape)
    left = () if rule.follows is None else rule.follows._fields
    around = slots_of_transforms(slots.keys() - {*fields, *rule.own, *left})
    own = tuple(slot for slot in slots if slot not in around)
    if own and own not in (rule.own, fields, tuple(left)):
        kept = ", ".join(fields) or "none"
        raise ValueError(f"{name!r} has the slots {', '.join(slots)}; {cls.__name__} keeps {kept}")
    entry: Any = {"t": parameter.updates, **slots}
    if own and len(slots) == 1:
        try:
            unpack(rule, entry, name)
        except ValueError:  # then the one slot is the entry
            (entry,) = slots.values()
    check_entry(rule, entry, name, None if parameter.dtype is None else compute_of(parameter.dtype))
    return entry


def placed(
    settings: Settings,
    parameter: Parameter,
    name: Hashable,
    arrays: Mapping[str, Any],
    home: Home | None,
    owned: bool,
) -> Record | Stored:
    """Return the state of a parameter in arrays of the optimizer's own, where the parameter is if that is known."""
    entry = entry_of(settings, parameter, name, arrays)
    rule = settings.of(name, parameter.known_shape).rule
    if home is not None:
        rule = rule.of(dtype_text(home[1].dtype), home[1].shape)

    def own(x: Any, slot: str) -> Any:
        if library_of(x) is None:
            return x
        y = x if home is None else moved(x, *home, dtype_of(rule, slot, *home[:2]))
        return copy_array(y) if y is x and not owned else y

    if isinstance(entry, dict):
        entry = {key: own(x, key) for key, x in entry.items()}
    else:
        entry = own(entry, next(iter(rule.fields), ""))
    if home is None:
        return Stored(entry, parameter.shape, parameter.dtype, parameter.updates)
    return Record(entry, home[1], parameter.updates)
