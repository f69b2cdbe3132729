"""The schedule that multiplies a value when the loss stops improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..._settings.ranges import FLAG, NON_NEGATIVE, Range
from ..._settings.setting import setting
from ..._settings.text import short
from .base import FINITE, STEP, Schedule
from .curves import check_stop
from .loss import finite_loss


class plateau(Schedule):
    """A value multiplied by a factor when the loss has not improved for some steps.

    Parameters
    ----------
    start : float
        The value at first. Finite.
    factor : float
        The factor, in (0, 1).
    patience : int
        The number of steps without a better loss after which the next one changes the value. At least 0.
    tol : float
        The improvement over the best loss that is needed: relative to its magnitude, if `relative`. At least 0.
    relative : bool
        Whether `tol` is relative.
    cooldown : int
        The number of steps after a change that are not counted. At least 0.
    stop : float
        The limit of the value. Finite, and in the direction of 0 from `start`.
    maximize : bool
        Whether a larger loss is the better one.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Notes
    -----
    The loss of a step is used before its value is computed. The state is the best loss, two counts and the value.

    Examples
    --------
    >>> from xpopt.schedulers import plateau
    >>> plateau(1.0, factor=0.5, patience=1).values(6, losses=[3, 2, 2, 2, 2, 2])
    array([1.  , 1.  , 1.  , 0.5 , 0.5 , 0.25])
    """

    start: float = setting(range=FINITE)
    factor: float = setting(default=0.1, range=Range(low=0, high=1, open_low=True, open_high=True))
    patience: int = setting(default=10, range=STEP, kw_only=True)
    tol: float = setting(default=1e-4, range=NON_NEGATIVE, kw_only=True)
    relative: bool = setting(default=True, range=FLAG, kw_only=True)
    cooldown: int = setting(default=0, range=STEP, kw_only=True)
    stop: float = setting(default=0.0, range=FINITE, kw_only=True)
    maximize: bool = setting(default=False, range=FLAG, kw_only=True)

    reads_loss = True

    @classmethod
    def _check_together(cls, values: Any) -> None:
        check_stop(cls.__name__, values["start"], values["factor"], values["stop"])

    def begin(self) -> dict[str, Any]:
        """Return what it remembers before the first step."""
        return {"value": self.start, "best": None, "bad": 0, "resting": 0}

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        """Take in a loss, and return the value.

        Parameters
        ----------
        step : int
            Not looked at.
        cur_loss : float
            The loss of the step, finite.
        state : dict
            What was remembered.

        Returns
        -------
        value : float
            The value.
        state : dict
            What is remembered then.
        """
        loss = finite_loss(type(self).__name__, cur_loss)
        value, best, bad, resting = (state[name] for name in _KEYS)
        if self._is_better(loss, best):
            best, bad = loss, 0
        else:
            bad += 1
        if resting:
            resting, bad = resting - 1, 0
        if bad > self.patience:
            bound = max if self.factor * value < value else min
            value, bad, resting = bound(value * self.factor, self.stop), 0, self.cooldown
        return value, dict(zip(_KEYS, (value, best, bad, resting), strict=True))

    def seen(self, step: int, state: Any) -> float:
        """Return the last value.

        Parameters
        ----------
        step : int
            Not looked at.
        state : dict
            What is remembered.

        Returns
        -------
        float
            The value.
        """
        value: float = state["value"]
        return value

    def restored(self, state: Any) -> Any:
        """Return the state in a checkpoint, once it has been checked.

        Parameters
        ----------
        state : object
            What JSON has.

        Returns
        -------
        dict
            The state.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        if not isinstance(state, Mapping) or set(state) != set(_KEYS):
            raise ValueError(f"{type(self).__name__}: state is {short(state)}; wanted a dict of {', '.join(_KEYS)}")
        best = state["best"]
        if best is not None and (type(best) is not float or not math.isfinite(best)):
            raise ValueError(f"{type(self).__name__}: best={short(best)} in state; wanted a finite float or None")
        counts = {name: int(STEP.check(type(self).__name__, name, state[name])) for name in ("bad", "resting")}
        return {"value": FINITE.check(type(self).__name__, "value", state["value"]), "best": best, **counts}

    def _is_better(self, loss: float, best: float | None) -> bool:
        if best is None:
            return True
        margin = self.tol * abs(best) if self.relative else self.tol
        return loss > best + margin if self.maximize else loss < best - margin


_KEYS = ("value", "best", "bad", "resting")
