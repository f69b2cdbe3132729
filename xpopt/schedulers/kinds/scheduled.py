"""Classes of which a setting may be a schedule, wherever it is a float."""

from __future__ import annotations

from typing import Any, ClassVar

from ..._settings.declared import range_of
from ..._settings.ranges import LearningRate, Range, number_of
from ..._settings.text import Call, Operation, naming, parse_value, short
from ..._settings.value import Value
from ..base import SchedulerBase
from .base import Schedule
from .make import hint_of_one, is_text_of_one, make_schedule


class Scheduled:
    """The part of a class with settings that takes schedules for floats; it comes before `Declared`."""

    takes_schedules: ClassVar[bool] = True
    """Whether schedules may stand for its floats."""

    @classmethod
    def _checked(cls, name: str, value: object, owner: str) -> Any:
        allowed = range_of(cls, name)  # type: ignore[arg-type]
        if not isinstance(value, int | float) and cls.takes_schedules and number_of(allowed) is not None:
            with naming(f"{owner}: {name}"):
                described = parse_value(value) if isinstance(value, str) and "(" in value else value
                if _is_one(described, allowed):
                    return make_schedule(described)
            if isinstance(described, Call) and isinstance(allowed, Range):
                neither = "is neither a number nor a schedule"
                what = f"{owner}: {name}={short(described)} {neither}{hint_of_one(described.name)}"
                raise TypeError(str(described.error(what)))
        return super()._checked(name, value, owner)  # type: ignore[misc]


def _is_one(value: Any, allowed: Any) -> bool:
    """Whether a value is a schedule, or describes one, where a float or what `allowed` takes may stand."""
    if isinstance(value, Schedule | Operation):
        return True
    if isinstance(value, Call):
        return is_text_of_one(value)
    if isinstance(value, SchedulerBase):  # of the learning rate it is told how to give it
        return not isinstance(allowed, LearningRate)
    if isinstance(value, type):
        return issubclass(value, Schedule)
    return callable(value) and not isinstance(value, Value)
