"""The attributes of an optimizer that its parts hold: settings, and the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, overload

from .._settings.setting import Guard
from ..schedulers import SchedulerBase


class SettingOf(Guard):
    """The attribute of a setting."""

    def __get__(self, instance: Any, owner: type[Any]) -> Any:
        if instance is None:
            return self
        if "_parts" not in vars(instance):  # in a constructor of the user's own
            return owner._defaults.get(self.name)
        return instance._parts.value(self.name)


class ScheduleOf:
    """The attribute of the schedule, which may be assigned."""

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> SchedulerBase: ...

    def __get__(self, instance: Any, owner: type[Any]) -> Self | SchedulerBase:
        if instance is None:
            return self
        scheduler: SchedulerBase = instance._parts.clock.scheduler
        return scheduler

    def __set__(self, instance: Any, spec: str | Mapping[str, Any] | SchedulerBase | None) -> None:
        instance.set_params({"lr_scheduler": spec})
