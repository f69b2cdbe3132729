"""The parts of an optimizer, taken down as a header and flat arrays."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import Rule
from .._settings.values import neutral_values
from .._state.entry import check_entry, left_by
from .._state.names import array_key
from .._state.parts import Parts
from ..transforms.make import as_text
from .header import Current, Header, Parameter, Schedule, Slot


def take_down(parts: Parts) -> tuple[Header, dict[str, Array]]:
    """Return all that an optimizer is set to and remembers.

    Parameters
    ----------
    parts : Parts
        Its parts; only looked at.

    Returns
    -------
    header : Header
    arrays : dict of str to array
        The slots themselves, by key.

    Raises
    ------
    ValueError
        The cache holds something that the next update would refuse.
    """
    settings, clock, state = parts.settings, parts.clock, parts.state
    parameters, arrays = [], {}
    for name, entry in state.cache.items():
        shape, dtype, updates = state.described(name)
        rule = left_by(settings.rule, entry, dtype, shape)
        slots = _slots(settings.cls, rule, name, entry)
        if isinstance(entry, dict):
            updates = operator.index(entry["t"])
        if shape is None:  # that of a slot that is like the parameter
            shaped = [field for field, spec in zip(rule.fields, rule.specs, strict=True) if spec.shape is not None]
            shape = next((x.shape for field, x in slots.items() if field not in shaped), None)
        sizes = None if shape is None else tuple(map(int, shape))
        described = {slot: Slot(tuple(map(int, x.shape)), dtype_text(x.dtype)) for slot, x in slots.items()}
        parameters.append(Parameter(name, sizes, dtype, updates, described))
        for slot, x in slots.items():
            arrays[array_key(name, slot)] = x
    values, neutral = {**settings.values, "lr": parts.stated_lr()}, neutral_values(settings.cls)
    current, keywords = clock.current(), dict(clock.scheduler.hyperparameters)
    return Header(
        settings.cls.__name__,
        settings.cls.version,
        {key: as_text(value) for key, value in values.items() if key not in neutral or value != neutral[key]},
        Schedule(keywords.pop("id"), keywords, clock.history()),
        clock.cur_step,
        parts.count_skipped(),
        None if current is None else Current(*current),
        tuple(parameters),
    ), arrays


def _slots(cls: type[Any], rule: Rule, name: Hashable, entry: Any) -> Mapping[str, Array]:
    """Return the arrays in a cache entry by the names of their slots."""
    check_entry(rule, entry, name)
    if isinstance(entry, dict):
        return {slot: x for slot, x in entry.items() if slot != "t"}
    library = library_of(entry)
    assert library is not None
    if library.dtype_name(entry.dtype) not in ("float32", "float64"):  # left by a rule that now keeps nothing
        raise ValueError(f"cache of {show(name)} is of {entry.dtype}; wanted float32 or float64")
    slot, *_ = rule.fields or cls.slots._fields
    return {slot: entry}


def to_host(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return arrays of any libraries as NumPy's, which may share their memory."""
    by_library: dict[Any, list[str]] = {}
    for key, x in arrays.items():
        by_library.setdefault(library_of(x), []).append(key)
    return {
        key: x
        for library, keys in by_library.items()
        for key, x in zip(keys, library.to_numpy([arrays[key] for key in keys]), strict=True)
    }
