"""What line searches are, and the formulas that they share."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import NamedTuple

from ..._settings.ranges import Range
from ..._settings.value import Value


class Trial(NamedTuple):
    """What was found at a step."""

    step: float
    value: float  # infinite where it is not finite
    slope: float  # the derivative of the value by the step
    linear: float  # the change of the value to first order: the step times the slope at 0, where there are no bounds


Trials = Generator[float, Trial, bool]

UNIT = Range(low=0, high=1, open_low=True, open_high=True)
HALF = Range(low=0, high=0.5, open_low=True, open_high=True)
MOST = 30
"""The most steps that one loop of a search tries."""


class LineSearch(Value):
    """Base of the line searches.

    One of your own derives from this, declares its numbers with `setting`, and writes `trials`.

    Parameters
    ----------
    **settings : object
        The settings of the class.
    """

    _kind = "line search"

    def trials(self, start: Trial, step: float) -> Trials:
        """Search.

        Parameters
        ----------
        start : Trial
            What is known at step 0; the slope is negative.
        step : float
            The first step to try, greater than 0.

        Yields
        ------
        float
            A step to try; what is sent back is the `Trial` there.

        Returns
        -------
        bool
            Whether the last step that was tried is taken. If not, the direction is given up.
        """
        raise NotImplementedError


def falls(start: Trial, found: Trial, share: float) -> bool:
    """Whether the value has fallen by a share of what the slope promises."""
    return found.value <= start.value + share * found.linear and found.value < math.inf


def lost(start: Trial, found: Trial) -> bool:
    """Whether the fall that the slope promises is lost in the rounding of the value."""
    return abs(found.linear) < 2.0**-54 * abs(start.value)


def cubic(a: Trial, b: Trial) -> float:
    """Return where the cubic through two values and slopes is least; NaN if there is none (eq. 3.59)."""
    if not (math.isfinite(b.value) and math.isfinite(b.slope)):
        return math.nan
    try:
        sum_ = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
        root = math.copysign(math.sqrt(sum_ * sum_ - a.slope * b.slope), b.step - a.step)
        return b.step - (b.step - a.step) * (b.slope + root - sum_) / (b.slope - a.slope + 2 * root)
    except (ValueError, ArithmeticError):
        return math.nan


def secant(a: Trial, b: Trial) -> float:
    """Return where the line through two slopes is 0; NaN if there is no such place."""
    turn = b.slope - a.slope
    return (a.step * b.slope - b.step * a.slope) / turn if turn else math.nan


def between(step: float, a: float, b: float, margin: float = 0.0) -> float:
    """Bring a step between two, some part of their distance away from both; the middle of them if it is NaN."""
    low, high = min(a, b), max(a, b)
    margin *= high - low
    return (low + high) / 2 if math.isnan(step) else min(max(step, low + margin), high - margin)
