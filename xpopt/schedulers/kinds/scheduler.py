"""A schedule of the learning rate as a schedule of anything."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ..._settings.text import short
from ..base import SchedulerBase
from .base import FINITE, Schedule


class scheduler(Schedule):
    """A `SchedulerBase` among schedules that are values: a copy, which is never called where it remembers anything.

    Parameters
    ----------
    template : SchedulerBase
        It; copied, from its start.
    """

    def __init__(self, template: SchedulerBase) -> None:
        self._template = template.copy()
        self._template.reset()

    @property
    def reads_loss(self) -> bool:  # type: ignore[override]
        """Whether it needs the loss of each step."""
        return self._template.reads_loss

    def settings(self) -> dict[str, Any]:
        """Return what it is made of."""
        return self._template.hyperparameters

    def begin(self) -> Any:
        """Return what it remembers before the first step; None where its class overrides no `state`."""
        if type(self._template).state is SchedulerBase.state:
            return None
        name = self._template.rate_name
        rate = None if name is None else float(getattr(self._template, name))
        return {"rate": rate, "state": self._template.state()}

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        """Call it, or a copy that goes on from what it remembers.

        Parameters
        ----------
        step, cur_loss : object
            As for a call of it.
        state : object
            What is remembered.

        Returns
        -------
        rate : float
            The rate.
        state : object
            What is remembered then.
        """
        if state is None:
            return self._template(step, cur_loss), None
        own = copy.deepcopy(self._template)
        own.restore(state["state"])
        rate = own(step, cur_loss)
        return rate, {"rate": rate, "state": own.state()}

    def seen(self, step: int, state: Any) -> float:
        """Return the last rate, or that of the step, where it depends on nothing else.

        Parameters
        ----------
        step : int
            Steps made so far.
        state : object
            What is remembered.

        Returns
        -------
        float
            The rate; 0 where it depends on losses of which none has come yet, and states no rate to start from.
        """
        if state is None and not self.reads_loss:
            return self._template(step)
        rate = None if state is None else state["rate"]
        return 0.0 if rate is None else rate

    def restored(self, state: Any) -> Any:
        """Return the state in a checkpoint, once it has been checked.

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
        if not isinstance(state, Mapping) or set(state) != {"rate", "state"}:
            raise ValueError(f"{self}: state is {short(state)}; wanted a dict of rate and state")
        own = copy.deepcopy(self._template)
        own.restore(state["state"])
        rate = state["rate"]
        return {"rate": None if rate is None else FINITE.check(str(self), "rate", rate), "state": own.state()}

    def __repr__(self) -> str:
        """Write the call of its class."""
        return repr(self._template)

    def __hash__(self) -> int:
        """Hash its text."""
        return hash(repr(self))
