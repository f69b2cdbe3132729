"""The schedule of the learning rate of an optimizer whose `lr` is a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._settings.declared import Declared, range_of
from .._settings.ranges import NON_NEGATIVE, number_of
from .._settings.text import short
from ..schedulers import SchedulerBase
from ..schedulers.kinds.base import STEP, Schedule
from .drawn import Draw, Shared, drawn_value, is_plain


class Following(SchedulerBase):
    """A schedule as a value, with what it remembers.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    schedule : Schedule
        Its `lr`.
    place : str
        The setting, for messages.
    """

    def __init__(self, cls: type[Declared], schedule: Schedule, place: str) -> None:
        allowed = number_of(range_of(cls, "lr")) or NON_NEGATIVE
        self.schedule, self._draw = schedule, Draw(0, "lr", place, schedule, allowed, {})
        self._state: Any = None
        self.is_plain = is_plain(schedule)
        self.reset()
        self._draw.first()

    reads_step = True

    @property
    def reads_loss(self) -> bool:  # type: ignore[override]
        """Whether the schedule does."""
        return self.schedule.reads_loss

    def __call__(self, step: Any = None, cur_loss: Any = None) -> float:
        """Return the rate of one step."""
        return self.drawn(int(STEP.check(self._draw.place, "step", step)), cur_loss, {})

    def drawn(self, step: int, cur_loss: Any, shared: Shared) -> float:
        """Return the rate of one step, as an equal schedule has drawn it in this step, or else for others."""
        if self.is_plain:
            value, state = drawn_value(self._draw.place, self.schedule, step, cur_loss, self._state)
        else:
            if self.schedule not in shared:
                shared[self.schedule] = drawn_value(self._draw.place, self.schedule, step, cur_loss, self._state)
            value, state = shared[self.schedule]
        rate = self._draw.number(value, step)
        self._state = state
        return rate

    learning_rate = __call__

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The schedule."""
        return {"id": type(self).__name__, "schedule": self.schedule}

    def reset(self) -> None:
        """Forget what has been seen."""
        self._state = self.schedule.begin()

    def state(self) -> dict[str, Any]:
        """Return what the schedule remembers."""
        return {} if self._state is None else {"state": self._state}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        if not state.keys() <= {"state"}:
            raise ValueError(f"{self}: state is {short(state)}; wanted what state() returns")
        self._state = self.schedule.restored(state.get("state"))

    def __repr__(self) -> str:
        """Write the schedule."""
        return repr(self.schedule)
