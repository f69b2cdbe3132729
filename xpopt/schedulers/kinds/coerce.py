"""What stands for a schedule, as a schedule: numbers, schedules of the learning rate, functions and text."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

from ..._settings.text import Call, Operation, naming, short
from ..base import SchedulerBase
from .base import Schedule
from .constant import constant
from .function import function
from .scheduler import scheduler


def as_schedule(value: Any) -> Schedule:
    """Return a schedule, or what stands for one, as a schedule.

    Parameters
    ----------
    value : Schedule, float, SchedulerBase, callable, str, mapping, Call or Operation
        A schedule; a number; a schedule of the learning rate; a function of the step; or text, or what was read of it.

    Returns
    -------
    Schedule
        A schedule itself, as it is.

    Raises
    ------
    TypeError
        It is nothing of this.
    ValueError
        The text names no schedule, or a value in it is out of range.
    """
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        return constant(value)  # type: ignore[arg-type]
    if isinstance(value, SchedulerBase):
        return scheduler(value)
    if isinstance(value, str | Mapping | Call | Operation):
        from .make import make_schedule

        return make_schedule(value)
    if callable(value) and not isinstance(value, type):
        return function(value)
    way_out = f"; call it, {value.__name__}(...)" if isinstance(value, type) and issubclass(value, Schedule) else ""
    raise TypeError(
        f"{short(value)} is not a schedule; wanted a schedule, a number, or a function of the step{way_out}"
    )


def stands_for_one(value: Any) -> bool:
    """Return whether an operator takes a value as a schedule.

    Parameters
    ----------
    value : object
        Any object.

    Returns
    -------
    bool
        Whether it is a schedule, a number or a function.
    """
    if isinstance(value, bool | type | str):
        return False
    return isinstance(value, numbers.Real | Schedule | SchedulerBase) or callable(value)


class OneSchedule:
    """A schedule, or what stands for one."""

    def check(self, owner: str, name: str, value: object) -> Schedule:
        """Return it as a schedule, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        Schedule
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        with naming(f"{owner}: {name}"):
            return as_schedule(value)
