"""Groups of parameters: what they may be given, what is shown of them, and patterns that match nothing."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from .._arrays.tree import show, text_of
from .._settings.constructor import names
from .._settings.make import make
from .._settings.registry import Registry
from .._settings.text import Call, naming, parse, short
from .._settings.values import Hyperparameters
from .._settings.values import shown as shown_values
from .._transforms.make import as_text
from ..schedulers import SchedulerBase
from .group import Group
from .schedules import Schedules, stated_lr, stated_scheduler
from .settings import Settings

FREEZE = "freeze"


class Other(NamedTuple):
    """Another optimizer, whose algorithm, settings and schedule a group has."""

    settings: Settings
    scheduler: SchedulerBase  # a copy


def with_others(place: str, given: Any, known: Registry[Any], owner: object) -> Any:
    """Return what a group is given, with the settings and the schedule of an optimizer in its place.

    Parameters
    ----------
    place : str
        The group, for messages.
    given : object
        A dict of changes, ``"freeze"``, or an optimizer, also as a call or as its `hyperparameters`.
    known : Registry
        The optimizers.
    owner : object
        The optimizer that is to have the group: a schedule that referred to the other one then refers to it.

    Returns
    -------
    dict, str or Other
        As `grouping.grouped` takes it.

    Raises
    ------
    TypeError, ValueError
        It is none of the above, or an optimizer that has groups itself.
    """
    if isinstance(given, Mapping) and "id" in given:
        with naming(place):
            given = make(known, parse(given))
    elif isinstance(given, Call):
        given = make(known, given)
    if known.made(given):
        if given._parts.settings.groups:
            raise ValueError(f"{place} is an optimizer that has groups; give them to {type(owner).__name__}")
        return Other(given._parts.settings, copy.deepcopy(given.lr_scheduler, {id(given): owner}))
    if isinstance(given, Mapping) or (isinstance(given, str) and given == FREEZE):
        return given
    wanted = f"wanted a dict of settings, {FREEZE!r}, or an optimizer"
    if isinstance(given, str):
        raise ValueError(f"{place}={short(given)} is unknown; {wanted}")
    way_out = f"; call it, {given.__name__}()" if isinstance(given, type) else ""
    raise TypeError(f"{place}={short(given)} is a {type(given).__name__}; {wanted}{way_out}")


def other_of(place: str, given: Any, known: Registry[Any], owner: object) -> Other:
    """Return the settings and the schedule of an optimizer; the arguments are those of `with_others`."""
    found = with_others(place, {} if given == FREEZE else given, known, owner)
    if isinstance(found, Other):
        return found
    raise TypeError(
        f"{place}={short(given)} is a {type(given).__name__}; wanted an optimizer, such as AdamW(), or None"
    )


def keywords(settings: Settings, scheduler: SchedulerBase) -> dict[str, Any]:
    """Return the constructor's keywords and what they are now, in documented order; without groups."""
    now = {**settings.values, "lr": stated_lr(settings, scheduler), "lr_scheduler": stated_scheduler(scheduler)}
    return {name: now[name] for name in names(settings.cls) if name in now}


def changes(group: Group, schedules: Schedules) -> dict[str, Any]:
    """Return what a group has that is not the optimizer's, or another optimizer's keywords, as they are now."""
    scheduler = schedules.get(group.settings.number)
    if group.own is None or scheduler is None:
        return dict(group.own or {}) if scheduler is None else keywords(group.settings, scheduler)
    now = {"lr": stated_lr(group.settings, scheduler), "lr_scheduler": stated_scheduler(scheduler)}
    return {name: now.get(name, value) for name, value in group.own.items()}


def all_changes(settings: Settings, group: Group, schedules: Schedules) -> dict[str, Any]:
    """Return what a group has, also for parameters of other shapes: each optimizer has the settings that it knows."""
    twin = next((one for one in settings.groups if one.others and one.pattern == group.pattern), None)
    return {**({} if twin is None else changes(twin, schedules)), **changes(group, schedules)}


def _shown(settings: Settings) -> Iterator[Group]:
    """Yield the groups with a pattern, each once."""
    return (group for group in settings.groups if not group.others)


def as_data(settings: Settings, schedules: Schedules) -> Hyperparameters:
    """Return the groups of an optimizer by pattern, as `OptimizerBase.hyperparameters` shows them."""
    found = {
        str(group.pattern): FREEZE if group.settings.frozen else _as_data(settings, group, schedules)
        for group in _shown(settings)
    }
    return Hyperparameters(found)


def _as_data(settings: Settings, group: Group, schedules: Schedules) -> Hyperparameters:
    data = {name: as_text(value) for name, value in all_changes(settings, group, schedules).items()}
    if data.get("lr_scheduler"):
        data["lr_scheduler"] = str(data["lr_scheduler"])
    if group.own is None:
        data = {"id": group.settings.cls.__name__, **data}
    return Hyperparameters(data)


def others_as_data(settings: Settings, schedules: Schedules) -> Hyperparameters | None:
    """Return the optimizer of parameters of other shapes in the same form."""
    return None if settings.companion is None else _as_data(settings, settings.companion, schedules)


def as_written(settings: Settings, schedules: Schedules) -> dict[str, Any]:
    """Return the groups of an optimizer by pattern, as its text shows them."""
    found: dict[str, Any] = {}
    for group in _shown(settings):
        if group.own is None:
            found[str(group.pattern)] = _call(group, schedules)
        else:
            found[str(group.pattern)] = FREEZE if group.settings.frozen else all_changes(settings, group, schedules)
    return found


def others_as_written(settings: Settings, schedules: Schedules) -> Call | None:
    """Return the optimizer of parameters of other shapes in the same form."""
    return None if settings.companion is None else _call(settings.companion, schedules)


def _call(group: Group, schedules: Schedules) -> Call:
    cls = group.settings.cls
    return Call(cls.__name__, shown_values(cls, changes(group, schedules)))


def check_matched(settings: Settings, leaves: Mapping[Hashable, Any]) -> None:
    """Raise a ValueError if a group has none of the parameters of a model.

    Parameters
    ----------
    settings : Settings
        The optimizer's.
    leaves : mapping of hashable to array
        The parameters.

    Raises
    ------
    ValueError
        A pattern matches no name, or such alone as an earlier pattern takes.
    """
    numbers = {settings.of_array(name, x).number for name, x in leaves.items()} - {0}
    taken = {settings.groups[number - 1].pattern for number in numbers}
    group = next((one for one in settings.groups if one.pattern is not None and one.pattern not in taken), None)
    if group is None:
        return
    problem = f"{settings.cls.__name__}: the pattern {group.pattern!r} of groups matches"
    for name, x in leaves.items():
        if group.matches(text_of(name)):
            first = settings.groups[settings.of_array(name, x).number - 1].pattern
            raise ValueError(
                f"{problem} only parameters that earlier patterns match, such as {show(name)} by {first!r}: the first "
                f"match is used; put {group.pattern!r} before it"
            )
    import difflib  # here, where a message is made

    near = difflib.get_close_matches(str(group.pattern), map(text_of, leaves), 1, 0.0)
    nearest = f"; the nearest name is {short(near[0])}" if near else ""
    raise ValueError(f"{problem} no parameter{nearest}. A pattern stands for whole names, such as 'enc/*'")
