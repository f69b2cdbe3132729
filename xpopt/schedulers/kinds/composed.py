"""Schedules that are made of others."""

from __future__ import annotations

from typing import Any, ClassVar

from ..._settings.text import short
from .base import DEEPEST, Schedule


class Composed(Schedule):
    """A schedule that is made of others, its parts: what they remember is a list."""

    _parts: ClassVar[tuple[Schedule, ...]] = ()  # of each instance; no setting

    def _begin(self, given: dict[str, Any]) -> None:
        super()._begin(given)
        self._compose(tuple(value for value in self.settings().values() if isinstance(value, Schedule)))

    def _compose(self, parts: tuple[Schedule, ...]) -> None:
        depth = 1 + max(part._depth for part in parts)
        if depth > DEEPEST:
            raise ValueError(f"{type(self).__name__}: schedules nested too deeply, more than {DEEPEST}")
        vars(self).update(_parts=parts, _depth=depth)

    @property
    def reads_loss(self) -> bool:  # type: ignore[override]
        """Whether one of the parts needs the loss of each step."""
        return any(part.reads_loss for part in self._parts)

    @property
    def length(self) -> float:
        """After how many steps all parts are over."""
        return max(part.length for part in self._parts)

    def begin(self) -> Any:
        """Return what the parts remember before the first step."""
        states = [part.begin() for part in self._parts]
        return None if all(state is None for state in states) else states

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        """Draw the parts.

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
        if state is None and not self.reads_loss:
            return self.seen(step, None), None
        states = [None] * len(self._parts) if state is None else state
        drawn = [part.draw(step, cur_loss, one) for part, one in zip(self._parts, states, strict=True)]
        return self.of([value for value, _ in drawn]), None if state is None else [one for _, one in drawn]

    def seen(self, step: int, state: Any) -> float:
        """Return the number of a step without its loss.

        Parameters
        ----------
        step : int
            Steps made so far.
        state : list or None
            What the parts remember.

        Returns
        -------
        float
            The number.
        """
        states = [None] * len(self._parts) if state is None else state
        return self.of([part.seen(step, one) for part, one in zip(self._parts, states, strict=True)])

    def of(self, values: list[float]) -> float:
        """Return the number that the numbers of the parts make.

        Parameters
        ----------
        values : list of float
            Of each.

        Returns
        -------
        float
            The number.
        """
        raise NotImplementedError

    def restored(self, state: Any) -> Any:
        """Return the state in a checkpoint, once the parts have checked it.

        Parameters
        ----------
        state : object
            What JSON has.

        Returns
        -------
        object
            The state.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        if self.begin() is None:
            return super().restored(state)
        if not isinstance(state, list) or len(state) != len(self._parts):
            raise ValueError(f"{type(self).__name__}: state is {short(state)}; wanted a list of {len(self._parts)}")
        return [part.restored(one) for part, one in zip(self._parts, state, strict=True)]
