"""Line searches: how far to go along a direction in which a function falls.

Each is a generator over numbers alone. It yields steps, is sent what was found there, and returns whether the last one
is taken. So it knows no arrays, and what it remembers is the list of what it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any, NamedTuple

from .._names import NAMES
from .._settings.ranges import POSITIVE, Range
from .._settings.registry import Registry
from .._settings.setting import setting
from .._settings.value import Value

__all__ = ["LineSearch", "armijo", "backtracking", "constant", "hager_zhang", "strong_wolfe"]


class Trial(NamedTuple):
    """What was found at a step."""

    step: float
    value: float  # infinite where it is not finite
    slope: float  # the derivative of the value by the step
    linear: float  # the change of the value to first order: the step times the slope at 0, where there are no bounds


Trials = Generator[float, Trial, bool]

_UNIT = Range(low=0, high=1, open_low=True, open_high=True)
_HALF = Range(low=0, high=0.5, open_low=True, open_high=True)
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


class constant(LineSearch):
    r"""Always the same step, :math:`t = r`; halved while the value there is not finite.

    Parameters
    ----------
    rate : float
        The step :math:`r` along the direction. Greater than 0.
    """

    rate: float = setting(range=POSITIVE)

    def trials(self, start: Trial, step: float) -> Trials:
        """Take it."""
        step = self.rate
        for _ in range(MOST):
            found = yield step
            if math.isfinite(found.value):
                return True
            step /= 2
        return False


class backtracking(LineSearch):
    r"""Shorten the step by a factor until the value falls enough.

    .. math:: \phi(t) \le \phi(0) + c\,t\,\phi'(0), \qquad t = t_0, f t_0, f^2 t_0, \ldots

    Parameters
    ----------
    factor : float
        The factor :math:`f`, in (0, 1).
    decrease : float
        The share :math:`c` of the decrease that the slope promises, in (0, 1).

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, Algorithm 3.1.
    """

    factor: float = setting(default=0.5, range=_UNIT)
    decrease: float = setting(default=1e-4, range=_UNIT)

    def trials(self, start: Trial, step: float) -> Trials:
        """Algorithm 3.1."""
        for _ in range(2 * MOST):
            found = yield step
            if _falls(start, found, self.decrease) and found.value < start.value:
                return True
            if _lost(start, found):
                break
            step *= self.factor
        return False


class armijo(LineSearch):
    r"""Shorten the step by interpolation until the value falls enough.

    .. math:: \phi(t) \le \phi(0) + c\,t\,\phi'(0)

    The next step is where the cubic through the values and slopes at 0 and :math:`t` is least, brought between a tenth
    and a half of :math:`t`.

    Parameters
    ----------
    decrease : float
        The share :math:`c` of the decrease that the slope promises, in (0, 1).

    References
    ----------
    .. [1] Armijo, "Minimization of functions having Lipschitz continuous first partial derivatives", Pacific Journal of
       Mathematics 16(1), 1966.
    .. [2] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, section 3.5.
    """

    decrease: float = setting(default=1e-4, range=_UNIT)

    def trials(self, start: Trial, step: float) -> Trials:
        """Interpolate."""
        for _ in range(2 * MOST):
            found = yield step
            if _falls(start, found, self.decrease) and found.value < start.value:
                return True
            if _lost(start, found):
                break
            step = _between(_cubic(start, found), 0.1 * step, 0.5 * step)
        return False


class strong_wolfe(LineSearch):
    r"""Find a step at which the value has fallen enough and the slope has become flat enough.

    .. math:: \phi(t) \le \phi(0) + c_1 t\,\phi'(0), \qquad |\phi'(t)| \le c_2 |\phi'(0)|

    Parameters
    ----------
    decrease : float
        The share :math:`c_1` of the decrease that the slope promises, in (0, 1/2).
    curvature : float
        The share :math:`c_2` of the slope that may be left, in (0, 1): 0.9 for quasi-Newton methods, and 0.1 for
        conjugate gradients. Greater than `decrease`.

    Raises
    ------
    TypeError, ValueError
        A value is out of range, or they are not in order.

    References
    ----------
    .. [1] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, Algorithms 3.5 and 3.6, with the
       cubic of eq. 3.59, kept away from the ends of the interval.
    """

    decrease: float = setting(default=1e-4, range=_HALF)
    curvature: float = setting(default=0.9, range=_UNIT)

    @classmethod
    def _check_together(cls, values: Any) -> None:
        if values["decrease"] >= values["curvature"]:
            raise ValueError(
                f"{cls.__name__}: decrease={values['decrease']} must be less than curvature={values['curvature']}"
            )

    def trials(self, start: Trial, step: float) -> Trials:
        """Algorithm 3.5: go on until there is an interval that has such a step."""
        before = start
        for _ in range(MOST):
            found = yield step
            if not _falls(start, found, self.decrease) or (found.value >= before.value and before is not start):
                return (yield from self._zoomed(start, before, found))
            if abs(found.slope) <= -self.curvature * start.slope:
                return True
            if found.slope >= 0:
                return (yield from self._zoomed(start, found, before))
            further = found.step - before.step
            step = _between(_cubic(before, found), found.step + 1.1 * further, found.step + 4 * further)
            before = found
        return True  # it falls without end

    def _zoomed(self, start: Trial, low: Trial, high: Trial) -> Trials:
        """Algorithm 3.6: shrink the interval between `low`, the best so far, and `high`."""
        last, length = high if high.step > low.step else low, math.inf
        for _ in range(MOST):
            before, length = length, abs(high.step - low.step)
            if length <= 1e-14 * max(low.step, high.step):
                break
            middle = (low.step + high.step) / 2
            step = middle
            if length <= 0.66 * before:
                step = _between(_cubic(low, high), low.step, high.step, margin=0.1)
            last = found = yield step
            if not _falls(start, found, self.decrease) or found.value >= low.value:
                if low is start and _lost(start, found):
                    break
                high = found
                continue
            if abs(found.slope) <= -self.curvature * start.slope:
                return True
            if found.slope * (high.step - low.step) >= 0:
                high = low
            low = found
        if low is start:
            return False
        if low is not last:
            yield low.step
        return True


class hager_zhang(LineSearch):
    r"""Find a step that fulfils the Wolfe conditions, or approximate ones, which rounding of the value leaves sharp.

    .. math::

        \phi(t) \le \phi(0) + \delta t\,\phi'(0) \text{ and } \phi'(t) \ge \sigma\,\phi'(0), \quad\text{or}\quad
        (2 \delta - 1)\,\phi'(0) \ge \phi'(t) \ge \sigma\,\phi'(0) \text{ and } \phi(t) \le \phi(0) + \epsilon |\phi(0)|

    Parameters
    ----------
    decrease : float
        The share :math:`\delta` of the decrease that the slope promises, in (0, 1/2).
    curvature : float
        The share :math:`\sigma` of the slope that may be left, in (0, 1). At least `decrease`.
    eps : float
        What the value may rise by, :math:`\epsilon`, in units of its magnitude. Greater than 0.

    Raises
    ------
    TypeError, ValueError
        A value is out of range, or they are not in order.

    References
    ----------
    .. [1] Hager and Zhang, "A new conjugate gradient method with guaranteed descent and an efficient line search", SIAM
       Journal on Optimization 16(1), 2005, section 4: conditions T1 and T2, steps L0 to L3, with expansion by 5,
       bisection, and a contraction of 0.66.
    """

    decrease: float = setting(default=0.1, range=_HALF)
    curvature: float = setting(default=0.9, range=_UNIT)
    eps: float = setting(default=1e-6, range=POSITIVE)

    @classmethod
    def _check_together(cls, values: Any) -> None:
        if values["decrease"] > values["curvature"]:
            raise ValueError(
                f"{cls.__name__}: decrease={values['decrease']} must be at most curvature={values['curvature']}"
            )

    def trials(self, start: Trial, step: float) -> Trials:
        """Steps L0 to L3."""
        try:
            low, high = yield from self._bracketed(start, step)
            for _ in range(MOST):
                before = high.step - low.step
                low, high = yield from self._by_secants(start, low, high)
                if high.step - low.step > 0.66 * before:
                    low, high = yield from self._updated(start, low, high, (low.step + high.step) / 2)
                if high.step - low.step <= 1e-14 * high.step:
                    break
        except _FoundError:
            return True
        except _LostError:
            pass
        return False

    def _tried(self, start: Trial, step: float) -> Generator[float, Trial, Trial]:
        """Try a step; leave the search if it is good."""
        found = yield step
        flat = found.slope >= self.curvature * start.slope
        exact = _falls(start, found, self.decrease)
        near = found.value <= self._highest(start) and found.slope <= (2 * self.decrease - 1) * start.slope
        if flat and (exact or near):
            raise _FoundError
        return found

    def _highest(self, start: Trial) -> float:
        return start.value + self.eps * abs(start.value)

    def _bracketed(self, start: Trial, step: float) -> Generator[float, Trial, tuple[Trial, Trial]]:
        """Return an interval over which the slope turns: steps B0 to B3."""
        low = start
        for _ in range(MOST):
            found = yield from self._tried(start, step)
            if found.value > self._highest(start):
                return (yield from self._bisected(start, start, found))
            if found.slope >= 0:
                return low, found
            low, step = found, 5 * step
        raise _FoundError  # it falls without end

    def _bisected(self, start: Trial, low: Trial, high: Trial) -> Generator[float, Trial, tuple[Trial, Trial]]:
        """Shrink an interval at whose end the value is too high: step U3."""
        for _ in range(MOST):
            found = yield from self._tried(start, (low.step + high.step) / 2)
            if found.value > self._highest(start):
                high = found
            elif found.slope >= 0:
                return low, found
            else:
                low = found
        raise _LostError

    def _updated(
        self, start: Trial, low: Trial, high: Trial, step: float
    ) -> Generator[float, Trial, tuple[Trial, Trial]]:
        """Shrink an interval by a step in it: steps U0 to U3."""
        if not low.step < step < high.step:
            return low, high
        found = yield from self._tried(start, step)
        if found.value > self._highest(start):
            return (yield from self._bisected(start, low, found))
        return (low, found) if found.slope >= 0 else (found, high)

    def _by_secants(self, start: Trial, low: Trial, high: Trial) -> Generator[float, Trial, tuple[Trial, Trial]]:
        """Shrink an interval by two secants: steps S1 to S4."""
        step = _secant(low, high)
        new_low, new_high = yield from self._updated(start, low, high, step)
        if new_high.step == step:
            step = _secant(high, new_high)
        elif new_low.step == step:
            step = _secant(low, new_low)
        else:
            return new_low, new_high
        return (yield from self._updated(start, new_low, new_high, step))


class _FoundError(Exception):
    """A step is good."""


class _LostError(Exception):
    """No step is."""


def _falls(start: Trial, found: Trial, share: float) -> bool:
    """Whether the value has fallen by a share of what the slope promises."""
    return found.value <= start.value + share * found.linear and found.value < math.inf


def _lost(start: Trial, found: Trial) -> bool:
    """Whether the fall that the slope promises is lost in the rounding of the value."""
    return abs(found.linear) < 2.0**-54 * abs(start.value)


def _cubic(a: Trial, b: Trial) -> float:
    """Return where the cubic through two values and slopes is least; NaN if there is none (eq. 3.59)."""
    if not (math.isfinite(b.value) and math.isfinite(b.slope)):
        return math.nan
    try:
        sum_ = a.slope + b.slope - 3 * (a.value - b.value) / (a.step - b.step)
        root = math.copysign(math.sqrt(sum_ * sum_ - a.slope * b.slope), b.step - a.step)
        return b.step - (b.step - a.step) * (b.slope + root - sum_) / (b.slope - a.slope + 2 * root)
    except (ValueError, ArithmeticError):
        return math.nan


def _secant(a: Trial, b: Trial) -> float:
    """Return where the line through two slopes is 0; NaN if there is no such place."""
    turn = b.slope - a.slope
    return (a.step * b.slope - b.step * a.slope) / turn if turn else math.nan


def _between(step: float, a: float, b: float, margin: float = 0.0) -> float:
    """Bring a step between two, some part of their distance away from both; the middle of them if it is NaN."""
    low, high = min(a, b), max(a, b)
    margin *= high - low
    return (low + high) / 2 if math.isnan(step) else min(max(step, low + margin), high - margin)


LINE_SEARCHES: Registry[LineSearch] = Registry(
    LineSearch,
    [name for name in NAMES["Line searches"] if name != "LineSearch"],
    lambda name: globals()[name],
    lambda cls: cls.trials is not LineSearch.trials,
)
"""The line searches by name."""
