"""Cosines, with and without restarts."""

from __future__ import annotations

import math

from ..._settings.ranges import POSITIVE
from ..._settings.setting import setting
from .base import COUNT, FINITE, Endless, Schedule
from .curves import between, scaled


def fallen(share: float) -> float:
    """Return how much of a height is left after a part of half a cosine.

    Parameters
    ----------
    share : float
        The part, from 0 to 1.

    Returns
    -------
    float
        From 1 to 0.
    """
    return (1 + math.cos(math.pi * share)) / 2


class cosine(Schedule):
    r"""Half a cosine.

    .. math:: f(t) = b + (a - b) \left(\frac{1 + \cos(\pi t / n)}{2}\right)^p, \qquad t \le n

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

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, arXiv:1608.03983,
       eq. 5, of one period.

    Examples
    --------
    >>> from xpopt.schedulers import cosine
    >>> cosine(1.0, 0.0, steps=4).values(6).round(3)
    array([1.   , 0.854, 0.5  , 0.146, 0.   , 0.   ])
    """

    start: float = setting(default=1.0, range=FINITE)
    stop: float = setting(default=0.0, range=FINITE)
    steps: int = setting(range=COUNT, kw_only=True)
    power: float = setting(default=1.0, range=POSITIVE, kw_only=True)

    def at(self, step: int) -> float:
        """Return the value of the cosine.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        left = fallen(step / self.steps)
        return between(self.start, self.stop, left if self.power == 1 else left**self.power)


class cosine_restarts(Endless):
    r"""Half a cosine, repeated.

    .. math:: f(t) = b + (a d^k - b) \, \frac{1 + \cos(\pi u / n_k)}{2}, \qquad n_k = n m^k

    at step :math:`u` of period :math:`k`.

    Parameters
    ----------
    start, stop : float
        The values :math:`a` and :math:`b` at the ends of the first period. Finite.
    period : int
        The length :math:`n` of the first period. At least 1.
    stretch : int
        The factor :math:`m` by which each period is longer than the last. At least 1.
    shrink : float
        The factor :math:`d` by which `start` is multiplied at each restart. Greater than 0.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, arXiv:1608.03983,
       eq. 5.
    """

    start: float = setting(default=1.0, range=FINITE)
    stop: float = setting(default=0.0, range=FINITE)
    period: int = setting(range=COUNT, kw_only=True)
    stretch: int = setting(default=1, range=COUNT, kw_only=True)
    shrink: float = setting(default=1.0, range=POSITIVE, kw_only=True)

    def at(self, step: int) -> float:
        """Return the value in the period that the step is in.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        number, length = 0, self.period
        if self.stretch == 1:
            number, step = divmod(step, length)
        while step >= length:
            number, step, length = number + 1, step - length, length * self.stretch
        return between(scaled(self.start, self.shrink, number), self.stop, fallen(step / length))
