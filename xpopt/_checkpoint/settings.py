"""The settings, groups and schedules that a header describes, once they have been checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .._settings.companion import OTHERS, takes_others
from .._settings.constructor import names
from .._settings.ranges import NON_NEGATIVE
from .._settings.text import short
from .._settings.values import check_values, names_of_step, neutral_values
from .._state.following import Following
from .._state.group import Group
from .._state.parts import Parts
from .._state.schedules import Schedules
from .._state.settings import Settings
from .._transforms.make import as_text
from ..schedulers import SchedulerBase, make_scheduler
from ..schedulers.kinds.base import Schedule as Values
from .header import LR, Grouped, Header, Schedule, named


def checked_settings(now: Settings, header: Header, problems: list[str]) -> Settings | None:
    """Return the settings in a header, or None if they cannot be those of an optimizer of the same class."""
    cls = now.cls
    if header.rule != cls.__name__:
        problems.append(f"the checkpoint is of {header.rule!r}, and this is {cls.__name__}; see xpopt.load_optimizer")
        return None
    return _settings_of(cls, header.version, header.settings, problems, now.values)


def _settings_of(
    cls: type[Any], version: int, written: Mapping[str, Any], problems: list[str], held: Mapping[str, Any]
) -> Settings | None:
    """Return the settings of a class from those that were written, or None if they cannot be."""
    before = len(problems)
    if version != cls.version:
        problems.append(f"the checkpoint is of {cls.__name__}'s version {version}, and this is {cls.version}")
    apart = (*_APART, OTHERS) if takes_others(cls) else _APART
    known = [name for name in names(cls) if name not in apart]
    values = {name: value for name, value in neutral_values(cls).items() if name not in apart}
    lacking = [name for name in known if name not in values.keys() | written.keys()]
    problems += [f"{cls.__name__} has the hyperparameter {name!r}, and the checkpoint does not" for name in lacking]
    for name, value in written.items():
        if name not in known:
            problems.append(f"{cls.__name__} has no hyperparameter {name!r}, and the checkpoint has {short(value)}")
            continue
        if _is_text_of(held, name, value):
            values[name] = held[name]
            continue
        try:
            values.update(check_values(cls, {name: value}))
        except (TypeError, ValueError) as error:
            problems.append(str(error))
    if len(problems) > before:
        return None
    try:
        return Settings.checked(cls, values)
    except (TypeError, ValueError) as error:
        problems.append(str(error))
        return None


def with_groups(
    settings: Settings,
    parts: Parts,
    groups: tuple[Grouped, ...],
    kinds: Mapping[str, type[SchedulerBase]],
    find: Callable[[str], type[Any] | None],
    problems: list[str],
) -> tuple[Settings, Schedules]:
    """Return settings with the groups in a header, and the schedules of these."""
    classes = {one.cls.__name__: one.cls for one in reversed(parts.settings.each)}
    held_by = {(group.pattern, group.others): group.settings.values for group in parts.settings.groups}
    first = len(named(groups))
    if len(groups) > first and not takes_others(settings.cls):
        problems.append(f"{settings.cls.__name__} has no {OTHERS}, and the checkpoint has")
    made: list[Group] = []
    schedules: Schedules = {}
    for number, written in enumerate(groups, 1):
        wrong: list[str] = []
        others = number > first
        under = next((one.settings for one in made if one.pattern is None), settings)
        own, mine = dict(written.settings or {}), under
        held = held_by.get((written.pattern, others), {})
        if written.rule is None:
            wrong += _check_own(under.cls, own, held)
        else:
            name, version = written.rule
            cls = classes.get(name) or find(name)
            if cls is None or cls.__name__ != name:
                wrong.append(f"unknown optimizer {name!r}; import the module that defines it first")
            else:
                mine = _settings_of(cls, version, own, wrong, held) or settings
        if written.schedule is not None:
            lr = own["lr"] if written.rule is None and "lr" in own else mine.values["lr"]
            scheduler = made_schedule(kinds, written.schedule, written.rate, mine.cls, lr, wrong)
            schedules |= {} if scheduler is None else {number: scheduler}
        frozen = written.settings is None
        mine = Settings(mine.cls, mine.values, (), number, frozen)
        group = Group(written.pattern, mine, own if written.rule is None else None, others)
        try:
            made.append(group if wrong else group.under(under))
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
        problems += [f"{group.place}: {line}" for line in wrong]
    return settings if problems else settings.with_groups(tuple(made)), schedules


def _is_text_of(held: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether a setting is written as the text of what there is: text does not hold a function of the user's own."""
    return isinstance(value, str) and name in held and as_text(held[name]) == value


def _check_own(cls: type[Any], own: dict[str, Any], held: Mapping[str, Any]) -> list[str]:
    """Bring the changes of a group to the form that they have in memory; return what is wrong with them."""
    wrong, known = [], set(names(cls)).difference(names_of_step(cls))
    for name, value in own.items():
        try:
            if name not in known or (name == "lr_scheduler" and value is not None):
                raise ValueError(f"{cls.__name__} has no hyperparameter {name!r} in groups, and the checkpoint has")
            if name == "lr_scheduler":
                own[name] = None
            else:
                same = _is_text_of(held, name, value)
                own[name] = held[name] if same else check_values(cls, {name: value})[name]
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
    return wrong


_APART = ("lr_scheduler", "groups")
"""Hyperparameters that are written apart from the others."""


def made_schedule(
    kinds: Mapping[str, type[SchedulerBase]],
    written: Schedule,
    rate: float | None,
    cls: type[Any],
    lr: Any,
    problems: list[str],
) -> SchedulerBase | None:
    """Return the schedule that was written; of classes with one name, one in use, of `kinds`, goes before others."""
    name, keywords, state = written
    try:
        if name == LR and isinstance(lr, Values):
            scheduler: SchedulerBase = Following(cls, lr, f"{cls.__name__}: lr")
            scheduler.restore(state)
            return scheduler
        scheduler = kinds[name](**keywords) if name in kinds else make_scheduler({"id": name, **keywords})
        if type(scheduler).__name__ != name:
            raise ValueError(f"unknown scheduler {name!r}")
        if keywords.keys() != scheduler.ranges.keys():
            raise ValueError(f"has {', '.join(keywords)} in the checkpoint; wanted {', '.join(scheduler.ranges)}")
        scheduler.restore(state)
        if rate is not None:
            NON_NEGATIVE.check("pass", "rate", rate)
        return scheduler
    except Exception as error:  # whatever a schedule of the user's own makes of a state that is not its own
        problems.append(f"lr_scheduler, the schedule {short(name)}: {error}")
        return None


def remembered_states(settings: Settings, header: Header, problems: list[str]) -> dict[Any, Any]:
    """Return what schedules remember, as the header says."""
    states = {}
    draws = {one[:2]: one for one in settings.drawn.draws} if settings.drawn is not None else {}
    for group, number, state in header.remembered:
        draw = draws.get((group, number))
        try:
            if draw is None:
                raise ValueError("it is no schedule here, and the checkpoint has the state of one")
            states[draw.schedule] = draw.schedule.restored(state)
        except Exception as error:  # as for those of the learning rate
            problems.append(f"{short(number)} of group {group}: {error}")
    return states
