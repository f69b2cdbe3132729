"""The settings that schedules draw at each step, of an optimizer and of its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from .._settings.ranges import Range
from ..schedulers.kinds.base import Schedule
from .interrupts import HELD, OPEN, enter

States = Mapping[Schedule, Any]
"""What schedules remember, those that do."""

Shared = dict[Schedule, tuple[Any, Any]]
"""What has been drawn in this step, and is remembered then, of schedules that are not plain."""


class Draw(NamedTuple):
    """A number among those of a step that a schedule draws."""

    group: int  # 0 for the optimizer's
    name: str  # among the numbers of a step
    place: str  # for messages
    schedule: Schedule
    allowed: Range
    dtypes: dict[str, str]  # in which it must not round to 0, and a parameter of each

    def first(self) -> float:
        """Return the number of step 0, before anything is drawn; in its range, if no loss has a part in it."""
        try:
            value = self.schedule.seen(0, self.schedule.begin())
        except Exception as error:
            raise _told(error, self.place, self.schedule, 0)  # noqa: B904 - as below
        return value if self.schedule.reads_loss else self.number(value, 0)

    def number(self, value: Any, step: int) -> float:
        """Return what was drawn, or raise an error that says what, where and when."""
        if type(value) is float and self.allowed.low < value < self.allowed.high and not self.dtypes:
            return value
        try:
            owner, name = self.place.rsplit(": ", 1)
            number = self.allowed.check(owner, name, value)
            for dtype, param in self.dtypes.items():
                if np.dtype(dtype).type(number) == 0:
                    raise ValueError(f"{self.place}={number!r} rounds to 0 in {dtype}, the compute dtype of {param}")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; that is {self.schedule} at step {step}") from None
        return number


def drawn_value(place: str, schedule: Schedule, step: int, cur_loss: Any, state: Any) -> tuple[Any, Any]:
    """Return what a schedule says of a step, and what it remembers then; an error says of what and when.

    Parameters
    ----------
    place : str
        The setting, for messages.
    schedule : Schedule
        The schedule.
    step, cur_loss, state : object
        As for `Schedule.draw`.

    Returns
    -------
    value : object
    state : object
    """
    try:
        if state is None and not schedule.reads_loss:
            return schedule.seen(step, None), None
        return schedule.draw(step, cur_loss, state)
    except BaseException as error:
        raise _told(error, place, schedule, step)  # noqa: B904 - from what it says


def _told(error: BaseException, place: str, schedule: Schedule, step: int) -> BaseException:
    """Return the error of a schedule with what it is about."""
    if isinstance(error, ArithmeticError):
        told = ValueError(f"{place}: {schedule} has no value at step {step}: {error}")
    elif type(error) is ValueError:
        told = ValueError(f"{place}: {error}; in {schedule} at step {step}")
    else:
        error.add_note(f"in {place}={schedule} at step {step}")
        return error
    told.__cause__ = error
    return told


class Drawn:
    """All numbers that schedules draw. Equal schedules are one: drawn once, and with one memory.

    Parameters
    ----------
    draws : iterable of Draw
        Which they are.
    """

    def __init__(self, draws: Iterable[Draw]) -> None:
        self.draws = tuple(draws)
        places: dict[Schedule, str] = {}
        for one in self.draws:
            places.setdefault(one.schedule, one.place)
        which = {schedule: k for k, schedule in enumerate(places)}
        self._which = [which[one.schedule] for one in self.draws]
        self._schedules = [(schedule, place, schedule.begin()) for schedule, place in places.items()]
        self._plain = all(is_plain(schedule) for schedule in places)

    def __eq__(self, other: object) -> bool:
        """Whether the same schedules draw the same numbers."""
        if not isinstance(other, Drawn):
            return NotImplemented
        return [one[:4] for one in self.draws] == [one[:4] for one in other.draws]

    __hash__ = None  # type: ignore[assignment]

    def kept(self, states: States) -> States:
        """Return of what schedules remember that of those which are among these."""
        return {schedule: states[schedule] for schedule, *_ in self._schedules if schedule in states}

    def at(
        self, step: int, cur_loss: Any, states: States, shared: Shared
    ) -> tuple[dict[int, dict[str, float]], States]:
        """Draw all.

        Parameters
        ----------
        step : int
            Steps made so far.
        cur_loss : object
            The loss of the step.
        states : mapping
            What schedules remember; not changed.
        shared : dict
            What the rates of the step have drawn.

        Returns
        -------
        numbers : dict of int to dict of str to float
            The numbers of each group, by name.
        states : mapping
            What they remember then.

        Raises
        ------
        TypeError, ValueError
            One is out of its setting's range.
        """
        if not self._plain:  # the user's code, or a wait for a loss: handlers of signals may run meanwhile
            enter(OPEN)
        values, after = [], {}
        for schedule, place, first in self._schedules:
            if shared and schedule in shared:
                value, state = shared[schedule]
            else:
                state = first if first is None else states.get(schedule, first)
                value, state = drawn_value(place, schedule, step, cur_loss, state)
            values.append(value)
            if state is not None:
                after[schedule] = state
        if not self._plain:
            enter(HELD)
        numbers: dict[int, dict[str, float]] = {}
        for one, k in zip(self.draws, self._which, strict=True):
            numbers.setdefault(one.group, {})[one.name] = one.number(values[k], step)
        return numbers, after

    def last(self, step: int, states: States) -> dict[int, dict[str, float]]:
        """Return the numbers of a step that has been drawn.

        Parameters
        ----------
        step : int
            The step.
        states : mapping
            What schedules remember after it.

        Returns
        -------
        dict of int to dict of str to float
            As `at` does; without those that cannot be drawn there, for the step may never have been made.
        """
        numbers: dict[int, dict[str, float]] = {}
        for one in self.draws:
            with suppress(Exception):  # of the user's own, too
                value = one.schedule.seen(step, states.get(one.schedule, one.schedule.begin()))
                numbers.setdefault(one.group, {})[one.name] = one.number(value, step)
        return numbers


def is_plain(schedule: Schedule) -> bool:
    """Whether no code of the user's own is in a schedule, and no loss is read."""
    from ..schedulers.kinds.function import function
    from ..schedulers.kinds.scheduler import scheduler

    if schedule.reads_loss or isinstance(schedule, function | scheduler):
        return False
    parts = getattr(schedule, "_parts", None)
    if parts is not None:
        return all(map(is_plain, parts))
    return type(schedule).__module__.startswith(_PACKAGE)


_PACKAGE = Schedule.__module__.rpartition(".")[0]
