"""The schedule that is a number."""

from __future__ import annotations

from ..._settings.setting import setting
from .base import FINITE, Endless


class constant(Endless):
    """The same number at every step.

    Parameters
    ----------
    value : float
        The number. Finite.
    steps : int, optional
        After how many steps it is over, for another schedule to follow. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Examples
    --------
    >>> from xpopt.schedulers import constant
    >>> (constant(1.0, steps=2) >> 0.5).values(4)
    array([1. , 1. , 0.5, 0.5])
    """

    value: float = setting(range=FINITE)

    @property
    def length(self) -> float:
        """After how many steps it is over, or 0."""
        return self.steps or 0

    def at(self, step: int) -> float:
        """Return the number.

        Parameters
        ----------
        step : int
            Not looked at.

        Returns
        -------
        float
            The number.
        """
        return self.value

    @property
    def is_number(self) -> bool:
        """Whether it is no more than a number, which text writes as such."""
        return self.steps is None
