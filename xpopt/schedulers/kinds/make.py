"""Schedules from text and dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import schedulers
from ..._names import NAMES
from ..._settings.registry import Registry
from ..._settings.suggest import suggest
from ..._settings.text import Call, Operation, parse, parse_value, short
from ..._settings.value import make_value
from ..make import SCHEDULERS, make_scheduler
from .base import Schedule
from .coerce import as_schedule
from .function import function
from .joined import joined


def make_schedule(spec: Any) -> Schedule:
    """Make a schedule from what describes it.

    Parameters
    ----------
    spec : str, mapping, Schedule, float, SchedulerBase or callable
        Text, such as ``"warmup(steps=10) * 0.1 >> 0.1"``, of which only calls, numbers and operators are read, and
        nothing is executed; a dict with ``"id"``, the name; or what stands for a schedule: a number, a schedule of the
        learning rate, a function of the step. A schedule is returned as it is.

    Returns
    -------
    Schedule
        The schedule. ``make_schedule(repr(schedule))`` is equal to ``schedule``, if no function is in it.

    Raises
    ------
    TypeError
        `spec` is none of the above, or a value is of the wrong type.
    ValueError
        A name or keyword is unknown, the text cannot be read, or a value is out of range.

    Examples
    --------
    >>> from xpopt.schedulers import make_schedule
    >>> make_schedule("warmup(steps=3) * 0.1 >> 0.1").values(5)
    array([0.025, 0.05 , 0.075, 0.1  , 0.1  ])
    """
    if isinstance(spec, str):
        spec = parse_value(spec)
    elif isinstance(spec, Mapping):
        spec = parse(spec)
    if isinstance(spec, Operation):
        parts = [make_schedule(part) for part in spec.parts]
        made = parts[0]
        for part in parts[1:]:
            made = joined(spec.sign, made, part)
        return made
    if not isinstance(spec, Call):
        return as_schedule(spec)
    if spec.name == function.__name__:
        raise spec.error(
            f"{short(str(spec))} is text that stands for a function, which cannot be read back; pass the function "
            f"itself, or load a checkpoint into an optimizer that has it"
        )
    if KINDS.find(spec.name) is None:
        if SCHEDULERS.find(spec.name) is not None:
            return as_schedule(make_scheduler(spec))
        raise spec.error(f"unknown schedule {short(spec.name)}{hint_of_one(spec.name)}")
    made = make_value(spec, KINDS, "schedule")
    assert isinstance(made, Schedule)
    return made


def hint_of_one(name: str) -> str:
    """Say which schedule an unknown name was meant to be.

    Parameters
    ----------
    name : str
        The name.

    Returns
    -------
    str
        The hint, or nothing.
    """
    return suggest(name, [*KINDS.names(), *SCHEDULERS.names()])


def is_text_of_one(spec: Any) -> bool:
    """Whether what was read of a text describes a schedule, whatever else may be said there.

    Parameters
    ----------
    spec : object
        What was read.

    Returns
    -------
    bool
        True for operations, and calls of schedules.
    """
    if isinstance(spec, Operation):
        return True
    return isinstance(spec, Call) and (KINDS.find(spec.name) is not None or SCHEDULERS.find(spec.name) is not None)


KINDS: Registry[Schedule] = Registry(
    Schedule,
    set(NAMES["Schedules as values"]) - {"epochs"},
    lambda name: getattr(schedulers, name),
    lambda kind: kind.at is not Schedule.at or kind.seen is not Schedule.seen,
)
"""The schedules by name."""
