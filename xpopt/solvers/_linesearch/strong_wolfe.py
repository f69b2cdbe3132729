"""Line search of Nocedal and Wright: the strong Wolfe conditions."""

from __future__ import annotations

import math
from typing import Any

from ..._settings.setting import setting
from .search import HALF, MOST, UNIT, LineSearch, Trial, Trials, between, cubic, falls, lost


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

    decrease: float = setting(default=1e-4, range=HALF)
    curvature: float = setting(default=0.9, range=UNIT)

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
            if not falls(start, found, self.decrease) or (found.value >= before.value and before is not start):
                return (yield from self._zoomed(start, before, found))
            if abs(found.slope) <= -self.curvature * start.slope:
                return True
            if found.slope >= 0:
                return (yield from self._zoomed(start, found, before))
            further = found.step - before.step
            step = between(cubic(before, found), found.step + 1.1 * further, found.step + 4 * further)
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
                step = between(cubic(low, high), low.step, high.step, margin=0.1)
            last = found = yield step
            if not falls(start, found, self.decrease) or found.value >= low.value:
                if low is start and lost(start, found):
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
