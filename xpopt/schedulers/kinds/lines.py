"""Straight lines and polynomials."""

from __future__ import annotations

from ..._settings.ranges import POSITIVE
from ..._settings.setting import setting
from .base import COUNT, FINITE, Schedule
from .curves import between


class linear(Schedule):
    r"""A straight line.

    .. math:: f(t) = a + (b - a) \, t / n, \qquad t \le n

    Parameters
    ----------
    start, stop : float
        The values :math:`a` and :math:`b` at its ends. Finite.
    steps : int
        Its length :math:`n`. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Examples
    --------
    >>> from xpopt.schedulers import linear
    >>> linear(1.0, 0.0, steps=4).values(6)
    array([1.  , 0.75, 0.5 , 0.25, 0.  , 0.  ])
    """

    start: float = setting(range=FINITE)
    stop: float = setting(range=FINITE)
    steps: int = setting(range=COUNT)

    def at(self, step: int) -> float:
        """Return the value of the line.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        return between(self.stop, self.start, step / self.steps)


class polynomial(Schedule):
    r"""A power of the fraction that is left.

    .. math:: f(t) = b + (a - b) (1 - t / n)^p, \qquad t \le n

    Parameters
    ----------
    start, stop : float
        The values :math:`a` and :math:`b` at its ends. Finite.
    steps : int
        Its length :math:`n`. At least 1.
    power : float
        The exponent :math:`p`. Greater than 0.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.
    """

    start: float = setting(range=FINITE)
    stop: float = setting(range=FINITE)
    steps: int = setting(range=COUNT)
    power: float = setting(default=1.0, range=POSITIVE)

    def at(self, step: int) -> float:
        """Return the value of the polynomial.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        left: float = (1 - step / self.steps) ** self.power
        return between(self.start, self.stop, left)


class warmup(Schedule):
    r"""A factor that rises linearly to 1, and is never 0.

    .. math:: f(t) = (t + 1) / (n + 1), \qquad t \le n

    Parameters
    ----------
    steps : int
        Its length :math:`n`: the step after it is the first whole one. At least 1.

    Raises
    ------
    TypeError, ValueError
        `steps` is of the wrong type, or out of range.

    References
    ----------
    .. [1] Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, arXiv:1706.02677, section
       2.2.

    Examples
    --------
    >>> from xpopt.schedulers import cosine, warmup
    >>> (warmup(steps=3) * 0.4 >> cosine(0.4, 0.0, steps=4)).values(9).round(3)
    array([0.1  , 0.2  , 0.3  , 0.4  , 0.341, 0.2  , 0.059, 0.   , 0.   ])
    """

    steps: int = setting(range=COUNT)

    def at(self, step: int) -> float:
        """Return the factor.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The factor.
        """
        return (step + 1) / (self.steps + 1)
