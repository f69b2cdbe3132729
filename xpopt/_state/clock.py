"""The step count, the schedules, and the rates that hold for each pass over the parameters."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from .._arrays.tree import show
from .._settings.caller import warn
from ..schedulers import ConstantScheduler, ExponentialScheduler, KingScheduler, NoamScheduler, SchedulerBase
from .drawn import Drawn, Shared, States
from .following import Following
from .interrupts import HELD, OPEN, WRITING, enter
from .passes import Passes

_NOTHING: dict[str, Any] = {}  # the state of a schedule that has none

_OURS = {ExponentialScheduler, NoamScheduler, KingScheduler}

_WHOLE = "whole model"  # what the last pass was, if `update_all` made it
_WHOLE_AND_STEP = "whole model, then step()"


class Pass(NamedTuple):
    """A pass over the parameters that is under way."""

    rate: float
    rates: dict[int, float]  # of groups that have a schedule of their own, by number
    names: tuple[Hashable, ...]  # that it has reached


class Clock:
    """Calls the schedules once per pass, however many parameters are updated in it.

    A pass begins at the first update after the step count moved or was set, or when a name is updated again. A rate is
    asked for, then confirmed when the update has succeeded, or taken back when it has not.

    Parameters
    ----------
    scheduler : SchedulerBase
        The optimizer's schedule.
    others : dict, optional
        Those that groups have, by the number of the group: they are asked whenever the optimizer's is.
    """

    def __init__(self, scheduler: SchedulerBase, others: dict[int, SchedulerBase] | None = None) -> None:
        self.scheduler = scheduler
        self.others = others or {}
        self._rates: dict[int, float] = {}  # of groups
        self._asked: dict[int, float] = {}  # the same, of a pass that is not confirmed
        self._constant: Sequence[tuple[ConstantScheduler, float]] = ()  # what they were, if none of the schedules moves
        self._listed: tuple[Any, ...] = (None,) * 4  # the arguments of the last `rates_of`, and its answer
        self._undo_others: dict[int, dict[str, Any]] = {}
        self._numbers: dict[int, dict[str, float]] = {}  # that schedules have drawn, of groups
        self.states: States = {}
        """What the schedules remember that draw them; replaced, never changed."""
        self._drawing: tuple[dict[int, dict[str, float]], States] | None = None  # both, of a pass that is not confirmed
        self.cur_step = 0
        self.passes = Passes()
        """Those that make a step of several gradients."""
        self._rate: float | None = None
        self._names: dict[Hashable, None] = {}  # a set of which the last can be taken out unhashed
        self._undo: dict[str, Any] | None = None  # to take back a rate that has been asked for
        self._first: dict[Hashable, None] = {}  # and the names of its pass, to be confirmed with it
        self._joined = False  # whether the last of `_names` waits to be confirmed
        self._moved = False
        self._last = ""
        self._warned: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Clock:
        """Return a clock that goes on alone, from before what is not confirmed; the names are the same objects."""
        twin = copy.copy(self)
        twin.scheduler = copy.deepcopy(self.scheduler, memo)
        twin.others = copy.deepcopy(self.others, memo)
        twin._undo_others, twin._constant = dict(self._undo_others), ()
        twin._names = dict(self._names)
        twin._warned = set(self._warned)
        twin.passes = self.passes.copy()
        twin.take_back()
        return twin

    def settled(self, memo: dict[int, Any]) -> Clock:
        """Return it as it was before an update that has not been confirmed, if there is one."""
        settled = self._undo is None and not self._joined and self.passes.is_settled
        return self if settled else copy.deepcopy(self, memo)

    def history(self, number: int = 0) -> dict[str, Any]:
        """Return the state of the schedule of a group, or of the optimizer, before what has not been confirmed."""
        if number:
            undo = None if self._undo is None else self._undo_others.get(number)
            return self.others[number].state() if undo is None else undo
        return self.scheduler.state() if self._undo is None else self._undo

    def last(self, drawn: Drawn, states: States) -> dict[int, dict[str, float]]:
        """Return the numbers of the last step as some schedules draw them."""
        return drawn.last(max(self.cur_step - 1, 0), states)

    def remembered(self) -> States:
        """Return what all schedules that are values remember, those of the rates too; equal ones remember the same."""
        numbered = {0: self.scheduler, **self.others}
        following = {k: one.schedule for k, one in numbered.items() if isinstance(one, Following)}
        histories = [(schedule, self.history(k)) for k, schedule in following.items()]
        return {**self.states, **{schedule: of["state"] for schedule, of in histories if of}}

    def replace_schedulers(
        self,
        scheduler: SchedulerBase,
        others: dict[int, SchedulerBase],
        numbers: dict[int, dict[str, float]] | None,
        states: States,
    ) -> None:
        """Follow other schedules from the next update on; `numbers` are those of the last step."""
        self.scheduler, self.others, self.states = scheduler, others, states
        self._numbers = {} if numbers is None else numbers
        self._asked, self._undo_others, self._constant = {}, {}, ()  # of groups that had the numbers before
        self._rate = None

    def move(self, step: int) -> None:
        """Set the step count: the next update begins a pass."""
        self.cur_step = step
        self._moved = True
        self._rate = None

    def current(self) -> Pass | None:
        """Return the pass that is under way; None between two passes."""
        if self._rate is None:
            return None
        names = list(self._names)[: len(self._names) - self._joined]
        return Pass(self._rate, self._rates, tuple(sorted(names, key=repr)))

    def at(
        self,
        scheduler: SchedulerBase,
        others: dict[int, SchedulerBase],
        step: int,
        current: Pass | None,
        passes: Passes,
        drawn: Drawn | None,
        states: States,
    ) -> Clock:
        """Return a clock that goes on from where another one was."""
        twin = Clock(scheduler, others)
        twin.cur_step = step
        twin.passes = passes
        twin._rate, twin._rates, names = current or (None, {}, ())
        if drawn is not None:
            twin.states = states
            twin._numbers = drawn.last(step, states) if current else twin.last(drawn, states)
        twin._names = dict.fromkeys(names)
        twin._moved = step > 0
        twin._warned = set(self._warned)
        return twin

    def tick(self, accumulate: int = 1) -> None:
        """Count one step; of several gradients, if the pass that ends here is the last that it has."""
        if accumulate > 1 and not self.passes.end(accumulate):
            return
        self.cur_step += 1
        self._moved = True
        self._rate = None
        if self._last == _WHOLE:
            self._last = _WHOLE_AND_STEP

    def reset(self) -> None:
        """Go back to step 0 and start the schedules over."""
        schedulers = [self.scheduler, *self.others.values()]
        before = [scheduler.state() for scheduler in schedulers]
        enter(WRITING)
        try:
            for scheduler in schedulers:
                scheduler.reset()
        except BaseException:
            for scheduler, state in zip(schedulers, before, strict=True):
                scheduler.restore(state)
            raise
        self.states = {}
        self.move(0)

    def ask(self, name: Hashable, cur_loss: Any, drawn: Drawn | None) -> float:
        """Return the rate for an update of `name`, and draw; `confirm` or `take_back` must follow."""
        if self._rate is not None and name not in self._names:
            self._names[name] = None
            self._joined = True
            return self._rate
        if self._rate is not None and not self._moved and (drawn is not None or self._reads_step()):
            self._warn(
                "step",
                f"{show(name)} is updated again and cur_step is still {self.cur_step}: the schedule stands still. "
                f"Call step() after each optimisation step, or use update_all",
            )
        self._first = {name: None}
        return self._call(cur_loss, drawn)

    def rate_of(self, number: int, rate: float) -> float:
        """Return the rate of a group where that of the optimizer is `rate`, which has been asked for."""
        return (self._asked if self._undo is not None else self._rates).get(number, rate)

    def rates_of(self, numbers: list[int], rate: float) -> list[float]:
        """Return the rates of groups, of which 0 is none, where that of the optimizer is `rate`."""
        known = self._asked if self._undo is not None else self._rates
        last_numbers, last_rate, last_known, rates = self._listed
        if last_numbers is not numbers or last_rate is not rate or last_known is not known:
            rates = [known.get(number, rate) for number in numbers]
            self._listed = numbers, rate, known, rates
        return rates

    def numbers_of(self, number: int) -> dict[str, float] | None:
        """Return the numbers that schedules have drawn for a group, of the pass under way or else of the last one."""
        return (self._numbers if self._drawing is None else self._drawing[0]).get(number)

    def ask_whole(self, cur_loss: Any, drawn: Drawn | None) -> float:
        """Return the rate for an update of the whole model, which is a pass of its own."""
        if self._last == _WHOLE_AND_STEP:
            self._warn(
                "twice", "step() was called between two calls of update_all, which counts the step itself: drop step()"
            )
        return self._call(cur_loss, drawn)

    def confirm(self, rate: float) -> None:
        """The update of the name asked for has succeeded; nothing in it can fail."""
        if self._undo is not None:  # the rate is new: this is the first of its pass
            self._names = self._first
            self._rates = self._asked
            self._undo = None
            if self._drawing is not None:
                self._keep_drawing(self._drawing)
        self._joined = False
        self._rate = rate
        self._last = ""

    def forget(self, held: Mapping[Hashable, Any]) -> None:
        """Let go of names that are no longer in the cache, `held`: a pass may never end."""
        if len(self._names) > len(held):
            self._names = {name: None for name in self._names if name in held}

    def confirm_whole(self, step: int) -> None:
        """The update of the whole model has succeeded, and `step` is the next; nothing in it can fail."""
        self._undo = None
        if self._drawing is not None:
            self._keep_drawing(self._drawing)
        self.move(step)
        self._last = _WHOLE

    def _keep_drawing(self, drawing: tuple[dict[int, dict[str, float]], States]) -> None:
        self._numbers, self.states = drawing
        self._drawing = None

    def take_back(self) -> None:
        """The update has failed: leave the schedule as it was."""
        self._drawing = None
        self.passes.take_back()
        if self._joined:
            self._names.popitem()
            self._joined = False
        if self._undo is not None:
            self.scheduler.restore(self._undo)
            for number, state in self._undo_others.items():
                self.others[number].restore(state)
            self._undo = None

    def _call(self, cur_loss: Any, drawn: Drawn | None) -> float:
        """Ask the schedules, and note what each was before."""
        shared: Shared = {}
        if self._undo_others:
            self._undo_others = {}
        if type(self.scheduler) is ConstantScheduler:
            self._undo = _NOTHING
            rate = self.scheduler.lr
        else:
            self._undo = self.scheduler.state()
            rate = self._answer(self.scheduler, cur_loss, shared)
        if self.others:
            changed = not self._constant
            for scheduler, last in self._constant:
                if scheduler.lr is not last:  # `any` of a generator takes longer
                    changed = True
            if changed:
                self._ask_others(cur_loss, shared)
        if drawn is not None:
            self._drawing = drawn.at(self.cur_step, cur_loss, self.states, shared)
        return rate

    def _ask_others(self, cur_loss: Any, shared: Shared) -> None:
        self._constant = ()
        rates, constant = {}, []
        for number, scheduler in self.others.items():
            if type(scheduler) is ConstantScheduler:
                rates[number] = scheduler.lr
                constant.append((scheduler, scheduler.lr))
            else:
                self._undo_others[number] = scheduler.state()
                rates[number] = self._answer(scheduler, cur_loss, shared)
        self._asked = rates
        self._constant = constant if len(constant) == len(rates) else ()

    def _answer(self, scheduler: SchedulerBase, cur_loss: Any, shared: Shared) -> float:
        """Ask a schedule; where it is the user's code, or may wait for a loss, handlers of signals run meanwhile."""
        ours = type(scheduler) in _OURS or (type(scheduler) is Following and scheduler.is_plain)
        if ours and (cur_loss is None or type(cur_loss) is float):
            return scheduler(self.cur_step, cur_loss)
        enter(OPEN)
        if type(scheduler) is Following:
            rate = scheduler.drawn(self.cur_step, cur_loss, shared)
        else:
            rate = scheduler(self.cur_step, cur_loss)
        enter(HELD)
        return rate

    def _reads_step(self) -> bool:
        if not self.others:
            return self.scheduler.reads_step
        return self.scheduler.reads_step or any(one.reads_step for one in self.others.values())

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warn(message)
