"""Values that rise and fall: one cycle, and many."""

from __future__ import annotations

import math

from ..._settings.ranges import POSITIVE, Choice, OrNone, Range
from ..._settings.setting import setting
from .base import FINITE, Endless, Schedule
from .cosine import fallen
from .curves import between, scaled
from .decays import LENGTH


class one_cycle(Schedule):
    r"""A rise to a peak, and a fall to far below the start.

    Parameters
    ----------
    peak : float
        The value at the top. Finite.
    rise, fall : int or float
        The steps up to the peak, and down from it. Greater than 0.
    last : int or float
        If greater than 0, `fall` leads back to `start`, and this number of steps from there to `stop`.
    start : float, optional
        The value at step 0; by default, `peak` divided by 25.
    stop : float, optional
        The value at the end; by default, `start` divided by 10,000.
    curve : {"cosine", "linear"}
        The form of each part.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2017,
       arXiv:1708.07120.
    """

    peak: float = setting(range=FINITE)
    rise: float = setting(range=LENGTH, kw_only=True)
    fall: float = setting(range=LENGTH, kw_only=True)
    last: float = setting(default=0, range=Range(low=0, kind="number"), kw_only=True)
    start: float | None = setting(default=None, range=OrNone(FINITE), kw_only=True)
    stop: float | None = setting(default=None, range=OrNone(FINITE), kw_only=True)
    curve: str = setting(default="cosine", range=Choice(("cosine", "linear")), kw_only=True)

    @property
    def length(self) -> float:
        """The steps of all parts."""
        return math.ceil(self.rise + self.fall + self.last)

    def at(self, step: float) -> float:
        """Return the value in the part that the step is in.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        start = self.peak / 25 if self.start is None else self.start
        stop = start / 1e4 if self.stop is None else self.stop
        parts = [(self.rise, start, self.peak), (self.fall, self.peak, start if self.last else stop)]
        if self.last:
            parts.append((self.last, start, stop))
        for steps, first, second in parts:
            if step <= steps:
                share = step / steps
                left = fallen(share) if self.curve == "cosine" else 1 - share
                return between(first, second, left)
            step -= steps
        return stop


class cyclic(Endless):
    r"""A rise and a fall in straight lines, repeated.

    .. math:: f(t) = a + (b - a) d^k h(t)

    where :math:`h` goes from 0 to 1 and back, and :math:`k` counts cycles or steps.

    Parameters
    ----------
    low, high : float
        The values :math:`a` and :math:`b` at the bottom and at the top of the first cycle. Finite.
    rise : int or float
        The steps up. Greater than 0.
    fall : int or float, optional
        The steps down; by default as many.
    factor : float
        The factor :math:`d` by which the height is multiplied. Greater than 0.
    per : {"cycle", "step"}
        Whether the height is multiplied after each cycle or after each step.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, arXiv:1506.01186.
    """

    low: float = setting(range=FINITE)
    high: float = setting(range=FINITE)
    rise: float = setting(range=LENGTH, kw_only=True)
    fall: float | None = setting(default=None, range=OrNone(LENGTH), kw_only=True)
    factor: float = setting(default=1.0, range=POSITIVE, kw_only=True)
    per: str = setting(default="cycle", range=Choice(("cycle", "step")), kw_only=True)

    def at(self, step: int) -> float:
        """Return the value in the cycle that the step is in.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        fall = self.rise if self.fall is None else self.fall
        cycle, done = divmod(step, self.rise + fall)
        height = done / self.rise if done <= self.rise else (self.rise + fall - done) / fall
        return between(self.high, self.low, scaled(height, self.factor, cycle if self.per == "cycle" else step))
