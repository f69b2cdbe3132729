"""The header from JSON. Nothing in it is taken on trust."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from reprlib import repr as short
from typing import Any

from .._arrays.library import PAIRS, SUPPORTED
from .._arrays.tree import show
from .._settings.ranges import LARGEST, LARGEST_TEXT
from .._state.names import check_hashes, decode
from .header import (
    CheckpointError,
    Current,
    Gathered,
    Grouped,
    Header,
    LossScale,
    Parameter,
    Remembered,
    Schedule,
    Slot,
    check_format,
    named,
    plain,
)

_KEYS = (
    *("format_version", "xpopt_version", "rule", "groups"),
    *("schedule", "cur_step", "skipped", "pass", "gathered", "loss_scale", "remembered", "parameters"),
)
_PARAMETER_KEYS = ("name", "shape", "dtype", "updates", "slots")


def header_and_arrays(state: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return the header and the arrays of what `OptimizerBase.state_dict` returned."""
    if not isinstance(state, Mapping) or state.keys() != {"header", "arrays"}:
        raise CheckpointError("wanted what state_dict returns, a dict of 'header' and 'arrays'")
    if not isinstance(state["arrays"], Mapping):
        raise CheckpointError(f"'arrays' is a {type(state['arrays']).__name__}; wanted a dict of arrays")
    return state["header"], state["arrays"]


def from_json(value: Any, *, owned: bool) -> Header:
    """Read what `to_json` wrote.

    Parameters
    ----------
    value : object
        Whatever came.
    owned : bool
        Whether it was read from a file: then it is made of JSON types, and no caller holds it.

    Returns
    -------
    Header
        In containers that no caller holds.

    Raises
    ------
    CheckpointError
        It is no header, or one of a newer format.
    """
    try:
        check_format(value)
        return _read(value if owned else plain(value, "it"))
    except RecursionError:
        raise CheckpointError("the header is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, CheckpointError) else CheckpointError(f"the header: {error}") from None


def _read(value: Any) -> Header:
    if type(value) is dict and "hyperparameters" in value:  # written before there were groups
        value = {**value, "groups": [{"match": None, "settings": value["hyperparameters"]}]}
        del value["hyperparameters"]
    if type(value) is dict:
        value = {
            "gathered": None,
            "loss_scale": None,
            "remembered": [],
            **value,
        }  # which are written where there is something to say
    _, _, rule, groups, schedule, cur_step, skipped, current, gathered, scale, remembered, parameters = _fields(
        value, "it", _KEYS
    )
    name, version = _rule(rule)
    if not _kind(groups, list, "groups"):
        raise ValueError("groups are []; the first is for all parameters")
    settings, *grouped = groups
    if current is not None:
        rate, names = _fields(current, "pass", ("rate", "names"))
        current = Current(_kind(rate, float, "rate"), _names(names, "pass"))
    if gathered is not None:
        passes, names = _fields(gathered, "gathered", ("passes", "names"))
        gathered = Gathered(_count(passes, "passes"), _names(names, "gathered"))
    described = tuple(_parameter(one) for one in _kind(parameters, list, "parameters"))
    check_hashes([parameter.name for parameter in described])
    return Header(
        name,
        version,
        _settings(settings),
        _groups(grouped, current),
        _schedule(schedule),
        _count(cur_step, "cur_step"),
        _count(skipped, "skipped"),
        current,
        gathered,
        None if scale is None else _loss_scale(scale),
        tuple(map(_remembered, _kind(remembered, list, "remembered"))),
        described,
    )


def _remembered(value: Any) -> Remembered:
    group, number, state = _fields(value, "what a schedule remembers", ("group", "number", "state"))
    return Remembered(_count(group, "a group"), _kind(number, str, "a number"), state)


def _loss_scale(value: Any) -> LossScale:
    scale, steps, failed = _fields(value, "loss_scale", ("value", "steps", "failed"))
    if not 0 < _kind(scale, float, "loss_scale") < float("inf"):
        raise ValueError(f"loss_scale is {scale}; wanted a finite number above 0")
    found = None if failed is None else _kind(failed, bool, "failed")
    return LossScale(scale, _count(steps, "steps of loss_scale"), found)


def _names(value: Any, place: str) -> tuple[Hashable, ...]:
    reached = tuple(decode(one) for one in _kind(value, list, "names"))
    check_hashes(reached)
    if len(set(reached)) != len(reached):
        raise ValueError(f"{place} names {short(reached)}, one of them twice")
    return reached


_DTYPES = (*SUPPORTED, *PAIRS)


def _parameter(value: Any) -> Parameter:
    name, shape, dtype, updates, slots = _fields(value, "a parameter", _PARAMETER_KEYS)
    name = decode(name)
    what = show(name)
    a_size, a_slot = f"a size of {what}", f"a slot of {what}"  # once: a name may be as long as the file
    if shape is not None:
        shape = tuple(_count(size, a_size) for size in _kind(shape, list, f"shape of {what}"))
    if dtype is not None and dtype not in _DTYPES:
        raise ValueError(f"dtype of {what} is {short(dtype)}; wanted one of {', '.join(_DTYPES)}")
    if type(slots) is list:  # written before slots had a shape and dtype
        if len({_kind(slot, str, a_slot) for slot in slots}) != len(slots):
            raise ValueError(f"slots of {what} are {short(slots)}; wanted distinct names")
        if slots and shape is None:
            raise ValueError(f"slots of {what} are {short(slots)}, of shape None; wanted a shape")
        slots = {slot: Slot(shape or (), None) for slot in slots}
    else:
        slots = {slot: _slot(x, a_size, a_slot) for slot, x in _kind(slots, dict, f"slots of {what}").items()}
    return Parameter(name, shape, dtype, _count(updates, f"updates of {what}"), slots)


def _slot(value: Any, a_size: str, a_slot: str) -> Slot:
    shape, dtype = _fields(value, a_slot, ("shape", "dtype"))
    if dtype not in _DTYPES:
        raise ValueError(f"dtype of {a_slot} is {short(dtype)}; wanted one of {', '.join(_DTYPES)}")
    return Slot(tuple(_count(size, a_size) for size in _kind(shape, list, f"shape of {a_slot}")), dtype)


def _rule(value: Any) -> tuple[str, int]:
    name, version = _fields(value, "rule", ("name", "version"))
    return _kind(name, str, "rule name"), _count(version, "rule version")


def _schedule(value: Any) -> Schedule:
    owner, keywords, state = _fields(value, "schedule", ("name", "hyperparameters", "state"))
    return Schedule(
        _kind(owner, str, "schedule name"),
        _kind(keywords, dict, "schedule hyperparameters"),
        _kind(state, dict, "schedule state"),
    )


def _settings(group: Any) -> dict[str, Any]:
    """Return the settings of parameters that are in no group: the first of `groups`, which matches all."""
    match, values = _fields(group, "the first of groups", ("match", "settings"))
    if match is not None:
        raise ValueError(f"the first of groups matches {short(match)}; wanted None, for all parameters")
    settings: dict[str, Any] = _kind(values, dict, "settings")
    return settings


def _groups(value: list[Any], current: Current | None) -> tuple[Grouped, ...]:
    found: list[Grouped] = []
    for group in value:
        match, rule, settings, schedule, rate = _fields(
            group, "a group", ("match", "rule", "settings", "schedule", "rate")
        )
        one = Grouped(
            None if match is None and rule is not None else _kind(match, str, "match"),
            None if rule is None else _rule(rule),
            None if settings is None else _kind(settings, dict, "settings"),
            None if schedule is None else _schedule(schedule),
            None if rate is None else _kind(rate, float, "rate"),
        )
        behind = any(before.pattern is None for before in found)  # for them there is always a schedule
        own = behind or rule is not None or bool({"lr", "lr_scheduler"} & (one.settings or {}).keys())
        if own != (schedule is not None) or (rate is not None) != (own and current is not None):
            raise ValueError(f"the group {short(match)} has a schedule or a rate that does not belong to its settings")
        found.append(one)
    groups = tuple(found)
    first = len(named(groups))
    for part in (groups[:first], groups[first:]):
        if len({one.pattern for one in part}) != len(part):
            raise ValueError(f"groups match {short([one.pattern for one in part])}; wanted distinct patterns")
    changed = {one.pattern for one in groups[:first] if one.rule is None and one.settings is not None}
    again = [one.pattern for one in groups[first + 1 :] if one.rule is None and one.settings is not None]
    if len(groups) > first and (set(again) != changed or len(groups) != first + 1 + len(again)):
        raise ValueError(f"groups of other shapes match {short(again)}; wanted those that change settings, {changed}")
    return groups


def _fields(value: Any, place: str, keys: tuple[str, ...]) -> list[Any]:
    if type(value) is not dict or value.keys() != set(keys):
        raise ValueError(f"{place} is {short(value)}; wanted a dict of {', '.join(keys)}")
    return [value[key] for key in keys]


def _kind(value: Any, kind: type[Any], place: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{place} is {short(value)}; wanted a {kind.__name__}")
    return value


def _count(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        what = f"beyond {LARGEST_TEXT}" if type(value) is int and value > LARGEST else short(value)
        raise ValueError(f"{place} is {what}; wanted an int of at least 0 and at most {LARGEST_TEXT}")
    return value
