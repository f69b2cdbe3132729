"""The parts of an optimizer, taken down as a header and flat arrays."""

from __future__ import annotations

import operator
import os
from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.library import PAIRS
from .._arrays.namespace import copy_array, library_of
from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import Rule
from .._settings.values import neutral_values
from .._state.clock import Clock, Pass
from .._state.following import Following
from .._state.group import Group
from .._state.groups import changes
from .._state.names import array_key
from .._state.parts import Parts
from .._state.restored import check_entry, left_by
from .._state.schedules import stated_lr
from .._state.settings import Settings
from .._transforms.make import as_text
from ..schedulers import SchedulerBase
from .constants import as_reference
from .header import LR, Current, Gathered, Grouped, Header, LossScale, Parameter, Remembered, Schedule, Slot
from .progress import Progress
from .writing import to_json


def as_dict(parts: Parts, copy: bool) -> dict[str, Any]:
    """Return what `OptimizerBase.state_dict` does."""
    header, arrays = take_down(parts)
    if copy:
        arrays = {key: copy_array(x) for key, x in arrays.items()}
    else:
        parts.state.ownership.show()  # from now on the next update writes none of them
    return {"header": to_json(header), "arrays": arrays}


def to_file(parts: Parts, path: str | os.PathLike[str], progress: Progress) -> None:
    """Write what `as_dict` returns to a file."""
    from . import file  # here, for only files need what it imports

    header, arrays = take_down(parts)
    file.write(path, to_json(header), to_host(arrays), progress)


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
        own = settings.of(name, state.shape(name, entry))
        rule = left_by(own.rule, entry, dtype, shape)
        slots = _slots(own.cls, rule, name, entry, state.converted(name, own.rule))
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
    current, passes = clock.current(), clock.passes.copy()
    between = settings.accumulate > 1 and (passes.done or passes.names)
    constants: dict[str, Array] = {}
    header = Header(
        settings.cls.__name__,
        settings.cls.version,
        _values(settings, clock.scheduler, constants),
        tuple(_group(group, clock, current, constants) for group in settings.groups),
        _schedule(clock.scheduler, clock.history()),
        clock.cur_step,
        parts.count_skipped(),
        None if current is None else Current(current.rate, current.names),
        Gathered(passes.done, tuple(sorted(passes.names, key=repr))) if between else None,
        None if parts.scale is None or settings.dynamic is None else LossScale(*parts.scale.read()),
        _remembered(settings, clock),
        tuple(parameters),
    )
    return header, arrays | constants


def _group(group: Group, clock: Clock, current: Pass | None, constants: dict[str, Array]) -> Grouped:
    """Return what is written of a group."""
    mine, number = group.settings, group.settings.number
    scheduler = clock.others.get(number)
    schedule = None if scheduler is None else _schedule(scheduler, clock.history(number))
    rate = None if current is None or scheduler is None else current.rates[number]
    if group.own is None:
        assert scheduler is not None
        values = _values(mine, scheduler, constants)
        return Grouped(group.pattern, (mine.cls.__name__, mine.cls.version), values, schedule, rate)
    own = {**changes(group, clock.others), **({"lr_scheduler": None} if "lr_scheduler" in group.own else {})}
    settings = None if mine.frozen else {name: _written(value, constants) for name, value in own.items()}
    return Grouped(group.pattern, None, settings, schedule, rate)


def _written(value: Any, constants: dict[str, Array]) -> Any:
    return as_reference(as_text(value), constants)


def _values(settings: Settings, scheduler: SchedulerBase, constants: dict[str, Array]) -> dict[str, Any]:
    """Return settings without those that leave the formula as it is without them."""
    values, neutral = {**settings.values, "lr": stated_lr(settings, scheduler)}, neutral_values(settings.cls)
    return {
        key: _written(value, constants) for key, value in values.items() if key not in neutral or value != neutral[key]
    }


def _remembered(settings: Settings, clock: Clock) -> tuple[Remembered, ...]:
    draws = () if settings.drawn is None else settings.drawn.draws
    states = [(one, clock.states.get(one.schedule)) for one in draws]
    return tuple(Remembered(one.group, one.name, state) for one, state in states if state is not None)


def _schedule(scheduler: SchedulerBase, state: dict[str, Any]) -> Schedule:
    if isinstance(scheduler, Following):
        return Schedule(LR, {}, state)
    keywords = dict(scheduler.hyperparameters)
    return Schedule(keywords.pop("id"), keywords, state)


def _slots(cls: type[Any], rule: Rule, name: Hashable, entry: Any, converted: str | None) -> Mapping[str, Array]:
    """Return the arrays in a cache entry by the names of their slots."""
    check_entry(rule, entry, name, converted)
    if isinstance(entry, dict):
        return {slot: x for slot, x in entry.items() if slot != "t"}
    library = library_of(entry)
    assert library is not None
    if not rule.fields and library.dtype_name(entry.dtype) not in (
        "float32",
        "float64",
        *PAIRS,
    ):  # left by a rule that now keeps nothing
        raise ValueError(
            f"cache of {show(name)} is of {entry.dtype}; wanted {' or '.join(['float32', 'float64', *PAIRS])}"
        )
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
