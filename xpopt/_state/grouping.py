"""Groups of parameters: what a dict by pattern makes of an optimizer, and what is left of them when it changes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .._settings.companion import OTHERS
from .._settings.constructor import names
from .._settings.text import naming, short
from .._settings.values import names_of_step
from ..schedulers import SchedulerBase
from ..schedulers.kinds.base import Schedule
from .group import Group
from .groups import FREEZE, Other, all_changes
from .schedules import Schedules, from_rate, own_scheduler, stated_lr
from .settings import Settings


class _Making:
    """Groups on their way, each with the next number, and their schedules."""

    def __init__(self, optimizer: Settings, memo: dict[int, Any]) -> None:
        self.optimizer, self._memo = optimizer, memo
        self.groups: list[Group] = []
        self.schedules: Schedules = {}

    def add_other(self, pattern: str | None, other: Other, place: str) -> None:
        """Add a group that has another optimizer; without a pattern, for parameters of other shapes."""
        _check_common(self.optimizer, other.settings, place)
        self._add(pattern, other.settings, None, self.optimizer, place, others=pattern is None)
        self.schedules[len(self.groups)] = other.scheduler

    def add_frozen(self, pattern: str, place: str) -> None:
        """Add a group that stays as it is."""
        self._add(pattern, self.optimizer, {}, self.optimizer, place, frozen=True)

    def add(
        self, pattern: str, of: Settings, scheduler: SchedulerBase, own: Mapping[str, Any], stated: Any, place: str
    ) -> None:
        """Add a group that differs from an optimizer, which has a schedule, in what that one knows.

        Parameters
        ----------
        pattern : str
            The pattern.
        of : Settings
            Those of the optimizer itself, or of that for other shapes.
        scheduler : SchedulerBase
            Its schedule.
        own : mapping
            The changes, checked.
        stated : object
            What was given as ``lr_scheduler``, if that is one of them.
        place : str
            The group, for messages.
        """
        known, others = names(of.cls), of is not self.optimizer
        own = {name: value for name, value in own.items() if name in known}
        self._add(pattern, of, own, of, place, others=others)
        number = len(self.groups)
        if "lr_scheduler" in own:
            lr = own.get("lr", stated_lr(of, scheduler))
            if stated is not None and "lr" not in own and isinstance(lr, Schedule):
                lr = None  # it has a schedule of its own in the place of the optimizer's
            place = f"{place}: lr_scheduler"
            self.schedules[number] = own_scheduler(of.cls, stated, lr, place, self._memo)
        elif "lr" in own:
            self.schedules[number] = from_rate(of.cls, scheduler, own["lr"], f"{place}: lr", self._memo)
        elif others:  # whose schedule no clock asks for a group of its own
            self.schedules[number] = copy.deepcopy(scheduler, dict(self._memo))

    def _add(
        self,
        pattern: str | None,
        of: Settings,
        own: Mapping[str, Any] | None,
        under: Settings,
        place: str,
        *,
        frozen: bool = False,
        others: bool = False,
    ) -> None:
        settings = Settings(of.cls, of.values, (), len(self.groups) + 1, frozen)
        with naming(place):
            self.groups.append(Group(pattern, settings, own, others).under(under))


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
    making, companion = _Making(settings, memo), spec.get(None)
    changed: list[tuple[str, dict[str, Any], Any, str]] = []
    for pattern, given in spec.items():
        if pattern is None:
            continue
        place = f"{settings.cls.__name__}: groups[{short(pattern)}]"
        if isinstance(given, Other):
            making.add_other(pattern, given, place)
        elif isinstance(given, str):
            making.add_frozen(pattern, place)
        else:
            own = _own(settings.cls, None if companion is None else companion.settings.cls, given, place)
            changed.append((pattern, own, given.get("lr_scheduler"), place))
            making.add(pattern, settings, scheduler, own, given.get("lr_scheduler"), place)
    if companion is not None:
        making.add_other(None, companion, f"{settings.cls.__name__}: {OTHERS}")
        others = making.groups[-1].settings
        for pattern, own, stated, place in changed:
            making.add(pattern, others, companion.scheduler, own, stated, place)
    return settings.with_groups(tuple(making.groups)), making.schedules


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
            found[group.pattern] = FREEZE if group.settings.frozen else all_changes(settings, group, schedules)
    return found


def _own(cls: type[Any], others: type[Any] | None, given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the changes of a group, of which one optimizer or the other has each, checked; None is a schedule."""
    common = names_of_step(cls)
    of_others = () if others is None else names(others)
    known = tuple(name for name in dict.fromkeys((*names(cls), *of_others)) if name not in common)
    own: dict[str, Any] = {}
    for name, value in given.items():
        if name in common:
            raise TypeError(f"{place} has {name}, which is for all parameters of a step; give it to {cls.__name__}")
        if name not in known:
            raise TypeError(f"{place} takes no keyword {short(name)}{cls._hint(str(name), known)}")
        owner = cls if others is None or name in names(cls) else others
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
