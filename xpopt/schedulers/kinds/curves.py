"""What formulas of schedules have in common: exact ends, powers that leave the floats, and where a value stays."""

from __future__ import annotations

import math


def between(start: float, stop: float, left: float) -> float:
    """Return the value that is some part of the way before `stop`.

    Parameters
    ----------
    start, stop : float
        The ends.
    left : float
        The part of the height that is left: 1 at `start`, 0 at `stop`.

    Returns
    -------
    float
        The value; the ends themselves have no rounding.
    """
    if left == 1:
        return start
    return stop + (start - stop) * left if left else stop


def scaled(start: float, factor: float, power: float) -> float:
    """Return ``start * factor**power``, infinite where no float is as large.

    Parameters
    ----------
    start : float
        A value.
    factor : float
        At least 0.
    power : float
        How often it is multiplied.

    Returns
    -------
    float
        The value.
    """
    try:
        scale: float = factor**power
    except OverflowError:
        scale = math.inf
    return start * scale if start else start


def check_stop(owner: str, start: float, factor: float, stop: float) -> None:
    """Raise a ValueError if a value that is multiplied again and again does not move towards where it shall stay.

    Parameters
    ----------
    owner : str
        The schedule's class, for the message.
    start, factor, stop : float
        Where it starts, the factor, and where it shall stay.

    Raises
    ------
    ValueError
        `stop` lies on the other side.
    """
    falls = start * factor < start
    if stop > start if falls else stop < start:
        way, wanted = ("falls", "most") if falls else ("does not fall", "least")
        raise ValueError(
            f"{owner}: stop={stop!r} is not reached from start={start!r}, which {way} with factor={factor!r}; wanted "
            f"at {wanted} {start!r}"
        )
