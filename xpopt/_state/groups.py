"""Groups of parameters: what a dict by pattern makes of them, what is shown, and patterns that match nothing."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple

from .._arrays.tree import show, text_of
from .._settings.companion import OTHERS
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


def other_of(place: str, given: Any, known: Registry[Any], owner: object) -> Other:
    """Return the settings and the schedule of an optimizer; the arguments are those of `with_others`."""
    found = with_others(place, {} if given == FREEZE else given, known, owner)
    if isinstance(found, Other):
        return found
    raise TypeError(
        f"{place}={short(given)} is a {type(given).__name__}; wanted an optimizer, such as AdamW(), or None"
    )


def grouped(
    settings: Settings, scheduler: SchedulerBase, spec: Mapping[str | None, Any], memo: dict[int, Any]
) -> tuple[Settings, Schedules]:
    """Return the settings of an optimizer with groups, and the schedules of these.

    Parameters
    ----------
    settings : Settings
        The optimizer's.
    scheduler : SchedulerBase
        Its schedule.
    spec : mapping
        By pattern a dict of changes, ``"freeze"``, or `Other`; by None the `Other` for parameters of other shapes than
        the optimizer takes.
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
    given_others = spec.get(None)
    patterns = {pattern: given for pattern, given in spec.items() if pattern is not None}
    groups: list[Group] = []
    schedules: Schedules = {}
    companion: Settings | None = None
    number = len(patterns) + 1
    if given_others is not None:
        _check_common(settings, given_others.settings, place := f"{settings.cls.__name__}: {OTHERS}")
        mine = given_others.settings
        with naming(place):
            last = Group(None, Settings(mine.cls, mine.values, (), number), None, others=True).under(settings)
        companion, schedules[number] = last.settings, given_others.scheduler
    twins: list[Group] = []
    for k, (pattern, given) in enumerate(patterns.items(), 1):
        place = _place(settings, pattern)
        frozen = isinstance(given, str)
        if isinstance(given, Other):
            _check_common(settings, given.settings, place)
            own, mine = None, given.settings
            schedules[k] = given.scheduler
        else:
            own, mine = {} if frozen else _own(settings, given, place, companion), settings
        known, mine_names = own, set(names(settings.cls))
        if companion is not None and own is not None:
            own = {name: value for name, value in own.items() if name in mine_names}
        group = Group(pattern, Settings(mine.cls, mine.values, (), k, frozen), own)
        with naming(place):
            groups.append(group.under(settings))
        if own is not None:
            _take_schedule(schedules, k, own, given, settings, scheduler, place, memo)
        if companion is not None and known is not None and not frozen:
            number += 1
            theirs = {name: value for name, value in known.items() if name in names(companion.cls)}
            twin = Group(pattern, Settings(companion.cls, companion.values, (), number), theirs, others=True)
            with naming(place):
                twins.append(twin.under(companion))
            followed = schedules[companion.number]
            if theirs.keys() & {"lr", "lr_scheduler"}:
                _take_schedule(schedules, number, theirs, given, companion, followed, place, memo)
            else:
                schedules[number] = copy.deepcopy(followed, dict(memo))
    if companion is not None:
        groups.append(last)
    return settings.with_groups((*groups, *twins)), schedules


def _take_schedule(
    schedules: Schedules,
    number: int,
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    settings: Settings,
    scheduler: SchedulerBase,
    place: str,
    memo: dict[int, Any],
) -> None:
    """Add the schedule of a group that differs from an optimizer in its rate."""
    if "lr_scheduler" in own:
        lr, stated = own.get("lr", stated_lr(settings, scheduler)), given["lr_scheduler"]
        if stated is not None and "lr" not in own and isinstance(lr, Schedule):
            lr = None  # it has a schedule of its own in the place of the optimizer's
        schedules[number] = own_scheduler(settings.cls, stated, lr, f"{place}: lr_scheduler", memo)
    elif "lr" in own:
        schedules[number] = from_rate(settings.cls, scheduler, own["lr"], f"{place}: lr", memo)


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
    groups: list[Group] = []
    after = schedules
    for number, group in enumerate(before.groups, 1):
        place, under = f"{settings.cls.__name__}: {group.place}", settings
        if group.others and group.own is not None:  # the other optimizer comes before it
            under = next(one.settings for one in groups if one.pattern is None)
        with naming(place):
            groups.append(group.under(under))
        follows = not group.others and group.own is not None and "lr" in group.own and "lr_scheduler" not in group.own
        if scheduler is not None and follows:
            lr = stated_lr(group.settings, schedules[number])
            if not isinstance(lr, Schedule):
                after = {**after, number: from_rate(settings.cls, scheduler, lr, f"{place}: lr", memo)}
    return settings.with_groups(tuple(groups)), after


def spec_of(settings: Settings, schedules: Schedules) -> dict[str | None, Any]:
    """Return what makes the groups that there are, as `grouped` takes it."""
    found: dict[str | None, Any] = {}
    for group in settings.groups:
        if group.others and group.own is not None:
            continue
        if group.own is None:
            found[group.pattern] = Other(group.settings, schedules[group.settings.number])
        else:
            found[group.pattern] = FREEZE if group.settings.frozen else _all_changes(settings, group, schedules)
    return found


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


def _all_changes(settings: Settings, group: Group, schedules: Schedules) -> dict[str, Any]:
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
    data = {name: as_text(value) for name, value in _all_changes(settings, group, schedules).items()}
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
            found[str(group.pattern)] = FREEZE if group.settings.frozen else _all_changes(settings, group, schedules)
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
                f"{problem} only parameters that earlier ones take, such as {show(name)} by {first!r}: the first that "
                f"matches counts; put {group.pattern!r} before it"
            )
    import difflib  # here, where a message is made

    near = difflib.get_close_matches(str(group.pattern), map(text_of, leaves), 1, 0.0)
    nearest = f"; the nearest name is {short(near[0])}" if near else ""
    raise ValueError(f"{problem} no parameter{nearest}. A pattern stands for whole names, such as 'enc/*'")


def _place(settings: Settings, pattern: str) -> str:
    return f"{settings.cls.__name__}: groups[{short(pattern)}]"


def _own(settings: Settings, given: Mapping[str, Any], place: str, others: Settings | None) -> dict[str, Any]:
    """Return the changes of a group, of which one optimizer or the other has each, checked; None is a schedule."""
    cls = settings.cls
    common = names_of_step(cls)
    of_others = () if others is None else names(others.cls)
    known = tuple(name for name in dict.fromkeys((*names(cls), *of_others)) if name not in common)
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name in common:
            raise TypeError(f"{place} has {name}, which is for all parameters of a step; give it to {cls.__name__}")
        if name not in known:
            raise TypeError(f"{place} takes no keyword {short(name)}{cls._hint(str(name), known)}")
        owner = cls if others is None or name in names(cls) else others.cls
        own[name] = None if name == "lr_scheduler" else owner._checked(name, value, place)
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
