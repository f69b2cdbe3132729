"""What is made of several schedules: one after another, products, sums, the larger one, and repetitions."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from ..._settings.ranges import OrNone
from ..._settings.setting import setting
from .base import COUNT, Schedule
from .coerce import OneSchedule, as_schedule, stands_for_one
from .composed import Composed
from .constant import constant


def joined(sign: str, first: Any, second: Any) -> Schedule:
    """Return what an operator makes of two schedules.

    Parameters
    ----------
    sign : str
        The operator, ``">>"``, ``"*"`` or ``"+"``.
    first, second : Schedule, float, SchedulerBase or callable
        What is left and right of it.

    Returns
    -------
    Schedule
        What is made of them; NotImplemented if one of them is none of the above.
    """
    if not stands_for_one(first) or not stands_for_one(second):
        return NotImplemented
    kind, parts = _KINDS[sign], [as_schedule(first), as_schedule(second)]
    if type(parts[0]) is kind:  # which is worked off from the left, so that a long row is not deep
        parts[:1] = parts[0]._parts
    return kind(*parts)


class _Joined(Composed):
    """What an operator makes of schedules, from the left.

    Parameters
    ----------
    *parts : Schedule
        The schedules.
    """

    sign: ClassVar[str]
    rank: ClassVar[int]  # what binds less is written in parentheses

    def __init__(self, *parts: Schedule) -> None:
        self._compose(parts)

    def settings(self) -> dict[str, Any]:
        """Return the schedules."""
        return {"parts": self._parts}

    def __repr__(self) -> str:
        """Write the operation."""
        first, *others = self._parts
        texts = [self._written(first, self.rank - 1)]
        for part in others:
            is_number = isinstance(part, constant) and part.is_number
            texts.append(repr(part.value) if is_number else self._written(part, self.rank))  # type: ignore[attr-defined]
        return f" {self.sign} ".join(texts)

    @staticmethod
    def _written(part: Schedule, rank: int) -> str:
        return f"({part!r})" if isinstance(part, _Joined) and part.rank <= rank else repr(part)


class _Then(_Joined):
    sign, rank = ">>", 1

    def _compose(self, parts: tuple[Schedule, ...]) -> None:
        for before, after in zip(parts, parts[1:]):  # noqa: B905, RUF007 - neighbours
            if not 0 < before.length < math.inf:
                raise ValueError(f"{before} has no end, after which {after} could follow; give it steps=")
        super()._compose(parts)

    @property
    def length(self) -> float:
        """The sum of all lengths; that of a number is 0."""
        return sum(part.length for part in self._parts)

    def _active(self, step: int) -> tuple[int, int]:
        """Return which part a step is in, and which step of it that is."""
        last = len(self._parts) - 1
        for i, part in enumerate(self._parts[:last]):
            if step < part.length:
                return i, step
            step -= int(part.length)
        return last, step

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        i, step = self._active(step)
        value, new = self._parts[i].draw(step, cur_loss, None if state is None else state[i])
        return value, None if state is None else [*state[:i], new, *state[i + 1 :]]

    def seen(self, step: int, state: Any) -> float:
        i, step = self._active(step)
        return self._parts[i].seen(step, None if state is None else state[i])


class _Sum(_Joined):
    sign, rank = "+", 2

    def of(self, values: list[float]) -> float:
        total = values[0]
        for value in values[1:]:
            total = total + value
        return total


class _Product(_Joined):
    sign, rank = "*", 3

    def of(self, values: list[float]) -> float:
        product = values[0]
        for value in values[1:]:
            product = product * value
        return product


_KINDS: dict[str, type[_Joined]] = {kind.sign: kind for kind in (_Then, _Sum, _Product)}


class maximum(Composed):
    """The larger one of two schedules at each step.

    Parameters
    ----------
    first, second : Schedule, float, SchedulerBase or callable
        The schedules. The result ends when both have ended.

    Raises
    ------
    TypeError, ValueError
        One of them is no schedule.

    Examples
    --------
    >>> from xpopt.schedulers import linear, maximum
    >>> maximum(linear(1.0, 0.0, steps=4), 0.4).values(5)
    array([1.  , 0.75, 0.5 , 0.4 , 0.4 ])
    """

    first: Any = setting(range=OneSchedule())
    second: Any = setting(range=OneSchedule())

    def of(self, values: list[float]) -> float:
        """Return the larger number.

        Parameters
        ----------
        values : list of float
            The two.

        Returns
        -------
        float
            The larger one.
        """
        return max(values)


class repeat(Composed):
    """A schedule, repeated.

    Parameters
    ----------
    schedule : Schedule
        A schedule that has an end.
    times : int, optional
        How often; by default, without an end. At least 1.

    Raises
    ------
    TypeError, ValueError
        `schedule` is none, or has no end; or `times` is out of range.

    Examples
    --------
    >>> from xpopt.schedulers import linear, repeat
    >>> repeat(linear(1.0, 0.0, steps=2), times=2).values(6)
    array([1. , 0.5, 1. , 0.5, 0. , 0. ])
    """

    schedule: Any = setting(range=OneSchedule())
    times: int | None = setting(default=None, range=OrNone(COUNT))

    @classmethod
    def _check_together(cls, values: Any) -> None:
        schedule = values["schedule"]
        if not 0 < schedule.length < math.inf:
            raise ValueError(f"{cls.__name__}: {schedule} has no end, after which it could begin again; give it steps=")

    @property
    def length(self) -> float:
        """That of the schedule, so many times."""
        return math.inf if self.times is None else int(self._parts[0].length) * self.times

    def _inside(self, step: int) -> int:
        (part,) = self._parts
        return int(part.length) if step >= self.length else step % int(part.length)

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        """Draw the schedule at the step in its turn.

        Parameters
        ----------
        step, cur_loss, state : object
            As for any schedule.

        Returns
        -------
        number : float
            The number.
        state : list or None
            What the parts remember then.
        """
        return super().draw(self._inside(step), cur_loss, state)

    def seen(self, step: int, state: Any) -> float:
        """Return the number of the step in its turn.

        Parameters
        ----------
        step : int
            Steps made so far.
        state : list or None
            What the schedule remembers.

        Returns
        -------
        float
            The number.
        """
        (part,) = self._parts
        return part.seen(self._inside(step), None if state is None else state[0])

    def of(self, values: list[float]) -> float:
        """Return the number of the schedule.

        Parameters
        ----------
        values : list of float
            It alone.

        Returns
        -------
        float
            The number.
        """
        return values[0]
