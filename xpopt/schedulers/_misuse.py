"""Calls of schedules that other libraries would take: an error says what the call is here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from .._settings.constructor import takes_settings
from .._settings.missing import Listed, NotHere
from .._settings.ranges import Check
from ._elsewhere import hint


class Guided(Listed):
    """The part of a schedule that other libraries' calls come to."""

    ranges: ClassVar[Mapping[str, Check]]
    _defaults: ClassVar[Mapping[str, Any]]

    get_last_lr = NotHere("call the schedule, scheduler(step)")
    get_lr = NotHere("call the schedule, scheduler(step)")
    load_state_dict = NotHere("restore(state) takes what state() returned")
    state_dict = NotHere("state() returns what has changed since the start")
    step = NotHere("the optimizer evaluates the schedule and counts the steps, with update_all or opt.step()")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse an optimizer in the place of the rate, and keywords that Python would not explain."""
        if args and hasattr(args[0], "step"):
            name, *_ = inspect.signature(cls).parameters or [""]
            if name in cls.ranges:
                raise TypeError(
                    f"{cls.__name__}: {name}, the first argument, is a {type(args[0]).__name__}; wanted a number. "
                    f"A schedule holds no optimizer here: opt = SGD(lr_scheduler={cls.__name__}(...))"
                )
        if kwargs and not takes_settings(cls.__init__):
            parameters = inspect.signature(cls).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                for keyword in kwargs:
                    if keyword not in parameters:
                        raise TypeError(f"{cls.__name__} takes no keyword {keyword!r}{hint(keyword, parameters)}")
        self = super().__new__(cls)
        vars(self).update(cls._defaults)  # for a constructor that reads them
        return self
