"""The schedules of an optimizer and of its groups: made, started from another rate, kept where groups change."""

from __future__ import annotations

import copy
from typing import Any

from .._settings.text import naming, short
from ..schedulers import ConstantScheduler, SchedulerBase, make_scheduler
from ..schedulers.kinds.base import Schedule
from .drawn import States
from .following import Following
from .group import Group
from .settings import Settings

Schedules = dict[int, SchedulerBase]
"""The schedules that groups have of their own, by the number of the group."""


def stated_lr(settings: Settings, scheduler: SchedulerBase) -> Any:
    """Return the rate that a schedule starts from, else the one that was given, which may be a schedule as a value."""
    rate = settings.values["lr"]
    return rate if scheduler.rate_name is None else getattr(scheduler, scheduler.rate_name)


def stated_scheduler(scheduler: SchedulerBase) -> SchedulerBase | None:
    """Return what is shown as `lr_scheduler`: nothing where `lr` is the schedule."""
    return None if isinstance(scheduler, Following) else scheduler


def own_scheduler(cls: type[Any], spec: Any, lr: Any, place: str, memo: dict[int, Any]) -> SchedulerBase:
    """Make the schedule that an optimizer was given, which no other optimizer shares.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    spec : None, str, mapping or SchedulerBase
        What it was given.
    lr : float or Schedule
        The starting rate, where `spec` does not state one; or the schedule itself.
    place : str
        What it was given as, for messages.
    memo : dict
        For a copy: the optimizer by its id, to which a schedule may refer.

    Returns
    -------
    SchedulerBase
        The schedule; a copy of an object.

    Raises
    ------
    TypeError, ValueError
        It cannot be made; or there are two.
    """
    if isinstance(lr, Schedule):
        if spec is not None:
            raise ValueError(
                f"{place}={short(spec)} and lr={lr} are two schedules; give one of them, or a number as lr"
            )
        return Following(cls, lr, place.removesuffix("_scheduler"))
    with naming(place):
        scheduler = make_scheduler(spec, lr=lr)
    return copy.deepcopy(scheduler, dict(memo)) if scheduler is spec else scheduler


def from_rate(cls: type[Any], scheduler: SchedulerBase, lr: Any, place: str, memo: dict[int, Any]) -> SchedulerBase:
    """Return a copy of a schedule that starts from another rate, where it has one; or what a new `lr` asks for."""
    if isinstance(lr, Schedule):
        return Following(cls, lr, place)
    if isinstance(scheduler, Following):
        return ConstantScheduler(lr)
    changed = copy.deepcopy(scheduler, dict(memo))  # a dict of its own: a second copy is another one
    if scheduler.rate_name is not None:
        with naming(place):
            changed.set_params({scheduler.rate_name: lr})
    return changed


def going_on(
    settings: Settings, schedules: Schedules, before: Settings, running: Schedules, *, replaced: bool
) -> Schedules:
    """Return the schedules of groups that have been made anew, and in their place those that need not start anew.

    Parameters
    ----------
    settings : Settings
        The optimizer's, with its new groups.
    schedules : dict
        The new schedules.
    before : Settings
        The optimizer's, with the groups that there were.
    running : dict
        The schedules that these have.
    replaced : bool
        Whether the optimizer has another schedule: groups that follow it at a rate of their own then start with it.

    Returns
    -------
    dict
        A schedule goes on where a group of the same pattern had one of the same class and settings.
    """
    had = {(group.pattern, group.others): group for group in before.groups}
    found = dict(schedules)
    for number, new in schedules.items():
        group = settings.groups[number - 1]
        old = had.get((group.pattern, group.others))
        follows = group.own is not None and "lr_scheduler" not in group.own
        if old is None or _kind(old) != _kind(group) or (replaced and follows):
            continue
        now = running[old.settings.number]
        if type(now) is type(new) and now.hyperparameters == new.hyperparameters:
            found[number] = now
    return found


def remember(states: States, scheduler: SchedulerBase | None, others: Schedules, running: Schedules) -> None:
    """Let new schedules go on from what equal ones remember.

    Parameters
    ----------
    states : mapping
        What the schedules of an optimizer remember, those that are values.
    scheduler : SchedulerBase or None
        The optimizer's, if it is new.
    others, running : dict
        Those of groups, and the ones that are no new ones.
    """
    kept = {id(one) for one in running.values()}
    for one in (scheduler, *others.values()):
        if isinstance(one, Following) and id(one) not in kept and one.schedule in states:
            one.restore({"state": states[one.schedule]})


def _kind(group: Group) -> tuple[Any, bool, bool]:
    """Return where a group has its schedule from."""
    own = group.own or {}
    return group.settings.cls if group.own is None else None, "lr" in own, "lr_scheduler" in own
