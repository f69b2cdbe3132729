"""The step count, the schedule, and the one rate that holds for each pass over the parameters."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

from .._caller import warn
from .._tree import show
from ..schedulers import SchedulerBase

_WHOLE = "whole model"  # what the last pass was, if `update_all` made it
_WHOLE_AND_STEP = "whole model, then step()"


class Clock:
    """Calls the schedule once per pass, however many parameters are updated in it.

    A pass begins at the first update after the step count moved or was set, or when a name comes round again. A rate is
    asked for, then confirmed when the update has succeeded, or taken back when it has not.
    """

    def __init__(self, scheduler: SchedulerBase) -> None:
        self.scheduler = scheduler
        self.cur_step = 0
        self._rate: float | None = None
        self._names: set[Hashable] = set()
        self._undo: dict[str, Any] | None = None
        self._moved = False
        self._last = ""
        self._warned: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        """Return a clock that goes on by itself; the names in the present pass are the same objects."""
        twin = copy.copy(self)
        twin.scheduler = self.scheduler.copy()
        twin._names = set(self._names)
        twin._warned = set(self._warned)
        return twin

    def replace_scheduler(self, scheduler: SchedulerBase) -> None:
        """Follow another schedule from the next update on."""
        self.scheduler = scheduler
        self._rate = None

    def move(self, step: int) -> None:
        """Set the step count: the next update begins a pass."""
        self.cur_step = step
        self._moved = True
        self._rate = None

    def current(self) -> tuple[float, tuple[Hashable, ...]] | None:
        """Return the rate of the pass that is under way and the names that it has reached; None between two passes."""
        return None if self._rate is None else (self._rate, tuple(sorted(self._names, key=repr)))

    def restore(self, scheduler: SchedulerBase, step: int, current: tuple[float, tuple[Hashable, ...]] | None) -> None:
        """Go on from where another clock was."""
        self.scheduler = scheduler
        self.cur_step = step
        self._rate, names = current or (None, ())
        self._names = set(names)
        self._moved = step > 0
        self._last = ""

    def tick(self) -> None:
        """Count one step."""
        self.move(self.cur_step + 1)
        if self._last == _WHOLE:
            self._last = _WHOLE_AND_STEP

    def reset(self) -> None:
        """Go back to step 0 and start the schedule over."""
        self.scheduler.reset()
        self.move(0)

    def ask(self, name: Hashable, cur_loss: Any) -> float:
        """Return the rate for an update of `name`; `confirm` or `take_back` must follow."""
        if self._rate is not None and name not in self._names:
            return self._rate
        if self._rate is not None and not self._moved and self.scheduler.reads_step:
            self._warn(
                "step",
                f"{show(name)} is updated again and cur_step is still {self.cur_step}: the schedule stands still. "
                f"Call step() after each optimisation step, or use update_all",
            )
        self._undo = self.scheduler.state()
        return self.scheduler(self.cur_step, cur_loss)

    def ask_whole(self, cur_loss: Any) -> float:
        """Return the rate for an update of the whole model, which is a pass of its own."""
        if self._last == _WHOLE_AND_STEP:
            self._warn(
                "twice", "step() was called between two calls of update_all, which counts the step itself: drop step()"
            )
        self._undo = self.scheduler.state()
        return self.scheduler(self.cur_step, cur_loss)

    def confirm(self, name: Hashable, rate: float, held: Mapping[Hashable, Any]) -> None:
        """The update of `name` has succeeded; names that are no longer in the cache, `held`, are forgotten in time."""
        if self._undo is not None:  # the rate is new: this is the first of its pass
            self._names.clear()
            self._undo = None
        self._rate = rate
        self._names.add(name)
        if len(self._names) > len(held):
            self._names.intersection_update(held)
        self._last = ""

    def confirm_whole(self) -> None:
        """The update of the whole model has succeeded: count the step."""
        self._undo = None
        self.move(self.cur_step + 1)
        self._last = _WHOLE

    def take_back(self) -> None:
        """The update has failed: leave the schedule as it was."""
        if self._undo is not None:
            self.scheduler.restore(self._undo)
            self._undo = None

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(message)
