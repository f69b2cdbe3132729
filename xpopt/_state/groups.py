"""Groups of parameters: what a dict by pattern makes of them, what is shown, and patterns that match nothing."""

from __future__ import annotations

import copy
from collections.abc import Collection, Hashable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .._arrays.tree import show, text_of
from .._settings.constructor import names
from .._settings.make import make
from .._settings.registry import Registry
from .._settings.text import Call, naming, parse, short
from .._settings.values import Hyperparameters, names_of_step
from .._settings.values import shown as shown_values
from .._transforms.make import as_text
from ..schedulers import SchedulerBase
from ..schedulers.kinds.base import Schedule
from .schedules import Schedules, from_rate, own_scheduler, stated_lr, stated_scheduler
from .settings import Group, Settings

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
        As `grouped` takes it.

    Raises
    ------
    TypeError, ValueError
        It is nothing of the above, or an optimizer that has groups itself.
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


def grouped(
    settings: Settings, scheduler: SchedulerBase, spec: Mapping[str, Any], memo: dict[int, Any]
) -> tuple[Settings, Schedules]:
    """Return the settings of an optimizer with groups, and the schedules of these.

    Parameters
    ----------
    settings : Settings
        The optimizer's.
    scheduler : SchedulerBase
        Its schedule.
    spec : mapping
        By pattern a dict of changes, ``"freeze"``, or `Other`.
    memo : dict
        For copies of schedules: the optimizer by its id, to which one may refer.

    Returns
    -------
    settings : Settings
    schedules : dict

    Raises
    ------
    TypeError, ValueError
        A value of the wrong kind or out of its range, an unknown name, or a setting that groups have in common.
    """
    groups: list[Group] = []
    schedules: Schedules = {}
    for number, (pattern, given) in enumerate(spec.items(), 1):
        place = _place(settings, pattern)
        frozen = isinstance(given, str)
        if isinstance(given, Other):
            _check_common(settings, given.settings, place)
            own, mine = None, given.settings
            schedules[number] = given.scheduler
        else:
            own, mine = {} if frozen else _own(settings, given, place), settings
        group = Group(pattern, Settings(mine.cls, mine.values, (), number, frozen), own)
        with naming(place):
            groups.append(group.under(settings))
        if own is not None and "lr_scheduler" in own:
            lr, stated = own.get("lr", stated_lr(settings, scheduler)), given["lr_scheduler"]
            if stated is not None and "lr" not in own and isinstance(lr, Schedule):
                lr = None  # it has a schedule of its own in the place of the optimizer's
            schedules[number] = own_scheduler(mine.cls, stated, lr, f"{place}: lr_scheduler", memo)
        elif own is not None and "lr" in own:
            schedules[number] = from_rate(mine.cls, scheduler, own["lr"], f"{place}: lr", memo)
    return settings.with_groups(tuple(groups)), schedules


def regrouped(
    settings: Settings,
    before: Settings,
    schedules: Schedules,
    scheduler: SchedulerBase | None,
    memo: dict[int, Any],
) -> tuple[Settings, Schedules]:
    """Return settings that have changed with the groups that there were, and the schedules of these.

    Parameters
    ----------
    settings : Settings
        The optimizer's after the change.
    before : Settings
        The same before it, with the groups.
    schedules : dict
        The schedules that the groups have.
    scheduler : SchedulerBase or None
        Another schedule of the optimizer: groups that have a rate of their own, and no schedule, follow it.
    memo : dict
        As for `grouped`.

    Returns
    -------
    settings : Settings
    schedules : dict

    Raises
    ------
    TypeError, ValueError
        A change has no meaning beside what a group has.
    """
    groups, after = [], schedules
    for number, group in enumerate(before.groups, 1):
        place = _place(settings, group.pattern)
        with naming(place):
            groups.append(group.under(settings))
        if scheduler is not None and group.own is not None and "lr" in group.own and "lr_scheduler" not in group.own:
            lr = stated_lr(group.settings, schedules[number])
            if not isinstance(lr, Schedule):
                after = {**after, number: from_rate(settings.cls, scheduler, lr, f"{place}: lr", memo)}
    return settings.with_groups(tuple(groups)), after


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


def as_data(settings: Settings, schedules: Schedules) -> Hyperparameters:
    """Return the groups of an optimizer by pattern, as `OptimizerBase.hyperparameters` shows them."""
    found: dict[str, Any] = {}
    for group in settings.groups:
        data = {name: as_text(value) for name, value in changes(group, schedules).items()}
        if data.get("lr_scheduler"):
            data["lr_scheduler"] = str(data["lr_scheduler"])
        if group.own is None:
            data = {"id": group.settings.cls.__name__, **data}
        found[group.pattern] = FREEZE if group.settings.frozen else Hyperparameters(data)
    return Hyperparameters(found)


def as_written(settings: Settings, schedules: Schedules) -> dict[str, Any]:
    """Return the groups of an optimizer by pattern, as its text shows them."""
    found: dict[str, Any] = {}
    for group in settings.groups:
        data, cls = changes(group, schedules), group.settings.cls
        what: Any = data if group.own is not None else Call(cls.__name__, shown_values(cls, data))
        found[group.pattern] = FREEZE if group.settings.frozen else what
    return found


def check_matched(settings: Settings, names: Collection[Hashable]) -> None:
    """Raise a ValueError if a group has none of the parameters of a model.

    Parameters
    ----------
    settings : Settings
        The optimizer's.
    names : collection of hashable
        The parameters.

    Raises
    ------
    ValueError
        A pattern matches no name, or such alone as an earlier pattern takes.
    """
    taken = {settings.of(name).number for name in names}
    if len(taken - {0}) == len(settings.groups):
        return
    group = next(one for one in settings.groups if one.settings.number not in taken)
    problem = f"{settings.cls.__name__}: the pattern {group.pattern!r} of groups matches"
    for name in names:
        if fnmatchcase(text_of(name), group.pattern):
            first = settings.groups[settings.of(name).number - 1].pattern
            raise ValueError(
                f"{problem} only parameters that earlier ones take, such as {show(name)} by {first!r}: the first that "
                f"matches counts; put {group.pattern!r} before it"
            )
    import difflib  # here, where a message is made

    near = difflib.get_close_matches(group.pattern, map(text_of, names), 1, 0.0)
    nearest = f"; the nearest name is {short(near[0])}" if near else ""
    raise ValueError(f"{problem} no parameter{nearest}. A pattern stands for whole names, such as 'enc/*'")


def _place(settings: Settings, pattern: str) -> str:
    return f"{settings.cls.__name__}: groups[{short(pattern)}]"


def _own(settings: Settings, given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the changes of a group, checked; None stands for a schedule."""
    cls = settings.cls
    common = names_of_step(cls)
    known = tuple(name for name in names(cls) if name not in common)
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name in common:
            raise TypeError(f"{place} has {name}, which is for all parameters of a step; give it to {cls.__name__}")
        if name not in known:
            raise TypeError(f"{place} takes no keyword {short(name)}{cls._hint(str(name), known)}")
        own[name] = None if name == "lr_scheduler" else cls._checked(name, value, place)
    return own


def _check_common(settings: Settings, other: Settings, place: str) -> None:
    """Raise a ValueError if another optimizer has a setting of the step that this one has not."""
    for name in names_of_step(settings.cls):
        value = other.values.get(name)
        if name in other.values and value not in (settings.values[name], other.cls._defaults[name]):
            raise ValueError(
                f"{place} has {name}={value!r}, which is for all parameters of a step; give it to "
                f"{settings.cls.__name__}"
            )
