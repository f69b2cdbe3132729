"""Lengths in epochs."""

from __future__ import annotations

from ..._settings.ranges import POSITIVE
from .base import COUNT, FINITE


def epochs(n: float, *, steps_per_epoch: int) -> int:
    """Return the number of steps in some epochs, as all lengths of schedules are in steps.

    Parameters
    ----------
    n : float
        The epochs. Greater than 0.
    steps_per_epoch : int
        The steps of one. At least 1.

    Returns
    -------
    int
        The steps: the nearest int, at least 1.

    Raises
    ------
    TypeError, ValueError
        One of them is not a number, or out of range.

    Examples
    --------
    >>> from xpopt.schedulers import epochs, linear
    >>> linear(0.1, 0.0, steps=epochs(2.5, steps_per_epoch=40))
    linear(start=0.1, stop=0.0, steps=100)
    """
    per_epoch = int(COUNT.check("epochs", "steps_per_epoch", steps_per_epoch))
    steps = POSITIVE.check("epochs", "n", n) * per_epoch
    return max(1, round(FINITE.check("epochs", "n * steps_per_epoch", steps)))
