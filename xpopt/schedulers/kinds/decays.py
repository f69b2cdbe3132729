"""Decays without an end of their own."""

from __future__ import annotations

from typing import Any

from ..._settings.ranges import NON_NEGATIVE, POSITIVE, OrNone, Range
from ..._settings.setting import setting
from .base import FINITE, Endless
from .curves import check_stop, scaled

LENGTH = Range(low=0, open_low=True, kind="number")


class exponential(Endless):
    r"""A value multiplied by a factor over each period of some steps.

    .. math:: f(t) = a d^{\,t / n}

    Parameters
    ----------
    start : float
        The value :math:`a` at step 0. Finite.
    factor : float
        The factor :math:`d`. Greater than 0.
    every : int or float
        The number of steps :math:`n` over which it is multiplied by `factor`. Greater than 0.
    stop : float, optional
        The last value, at which it stays: below `start` if the value falls, else above.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.
    """

    start: float = setting(range=FINITE)
    factor: float = setting(range=POSITIVE)
    every: float = setting(default=1, range=LENGTH, kw_only=True)
    stop: float | None = setting(default=None, range=OrNone(FINITE), kw_only=True)

    @classmethod
    def _check_together(cls, values: Any) -> None:
        if values["stop"] is not None:
            check_stop(cls.__name__, values["start"], values["factor"], values["stop"])

    def at(self, step: int) -> float:
        """Return the value of the exponential function.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        value = scaled(self.start, self.factor, step / self.every)
        if self.stop is None:
            return value
        falls = self.start * self.factor < self.start
        return max(value, self.stop) if falls else min(value, self.stop)


class inverse_time(Endless):
    r"""A value divided by a power of the growing step.

    .. math:: f(t) = a (1 + r t)^{-p}

    Parameters
    ----------
    start : float
        The value :math:`a` at step 0. Finite.
    rate : float
        The rate :math:`r`, for each step. Finite, at least 0.
    power : float
        The exponent :math:`p`; 0.5 for an inverse root. Greater than 0.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Robbins and Monro, "A stochastic approximation method", Annals of Mathematical Statistics 22(3), 1951, for
       whose condition a power above 1/2 and at most 1 is enough.
    """

    start: float = setting(range=FINITE)
    rate: float = setting(range=NON_NEGATIVE)
    power: float = setting(default=1.0, range=POSITIVE, kw_only=True)

    def at(self, step: int) -> float:
        """Return the value.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        return self.start / scaled(1.0, 1 + self.rate * step, self.power)
