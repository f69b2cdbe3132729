"""Line search of Hager and Zhang: Wolfe conditions that rounding of the value leaves sharp."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ..._settings.ranges import POSITIVE
from ..._settings.setting import setting
from .search import HALF, MOST, UNIT, LineSearch, Trial, Trials, falls, secant


class hager_zhang(LineSearch):
    r"""Find a step that fulfils the Wolfe conditions, or approximate ones, which tolerate rounding of the value.

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

    decrease: float = setting(default=0.1, range=HALF)
    curvature: float = setting(default=0.9, range=UNIT)
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
        exact = falls(start, found, self.decrease)
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
        step = secant(low, high)
        new_low, new_high = yield from self._updated(start, low, high, step)
        if new_high.step == step:
            step = secant(high, new_high)
        elif new_low.step == step:
            step = secant(low, new_low)
        else:
            return new_low, new_high
        return (yield from self._updated(start, new_low, new_high, step))


class _FoundError(Exception):
    """A step is good."""


class _LostError(Exception):
    """No step is."""
