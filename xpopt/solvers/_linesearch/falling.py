"""Line searches that shorten a step until the value falls."""

from __future__ import annotations

import math

from ..._settings.ranges import POSITIVE
from ..._settings.setting import setting
from .search import MOST, UNIT, LineSearch, Trial, Trials, between, cubic, falls, lost


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

    factor: float = setting(default=0.5, range=UNIT)
    decrease: float = setting(default=1e-4, range=UNIT)

    def trials(self, start: Trial, step: float) -> Trials:
        """Algorithm 3.1."""
        for _ in range(2 * MOST):
            found = yield step
            if falls(start, found, self.decrease) and found.value < start.value:
                return True
            if lost(start, found):
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

    decrease: float = setting(default=1e-4, range=UNIT)

    def trials(self, start: Trial, step: float) -> Trials:
        """Interpolate."""
        for _ in range(2 * MOST):
            found = yield step
            if falls(start, found, self.decrease) and found.value < start.value:
                return True
            if lost(start, found):
                break
            step = between(cubic(start, found), 0.1 * step, 0.5 * step)
        return False
