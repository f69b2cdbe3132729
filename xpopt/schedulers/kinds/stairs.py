"""Values that stay, and change at some steps."""

from __future__ import annotations

import bisect
import itertools
from typing import Any

from ..._settings.ranges import POSITIVE
from ..._settings.setting import setting
from ..._settings.text import short
from .base import COUNT, FINITE, Endless, Schedule
from .curves import scaled


class _Rising:
    """Steps, each after the one before it."""

    def check(self, owner: str, name: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or not value:
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted a tuple of steps")
        steps = tuple(int(COUNT.check(owner, f"a step of {name}", step)) for step in value)
        if any(first >= second for first, second in itertools.pairwise(steps)):
            raise ValueError(f"{owner}: {name}={short(value)}: wanted steps in rising order")
        return steps


class _Levels:
    """Finite numbers."""

    def check(self, owner: str, name: str, value: Any) -> tuple[float, ...]:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{owner}: {name}={short(value)} is a {type(value).__name__}; wanted a tuple of numbers")
        return tuple(FINITE.check(owner, f"a number of {name}", level) for level in value)


class staircase(Endless):
    r"""A value multiplied by a factor after each stage.

    .. math:: f(t) = a d^{\lfloor t / n \rfloor}

    Parameters
    ----------
    start : float
        The value :math:`a` at step 0. Finite.
    factor : float
        The factor :math:`d`. Greater than 0.
    every : int
        The length :math:`n` of a stage. At least 1.
    steps : int, optional
        The number of steps after which it ends. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.
    """

    start: float = setting(range=FINITE)
    factor: float = setting(default=0.1, range=POSITIVE)
    every: int = setting(range=COUNT, kw_only=True)

    def at(self, step: int) -> float:
        """Return the value of the stage.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        return scaled(self.start, self.factor, step // self.every)


class multi_step(Schedule):
    r"""A value multiplied by a factor at some steps.

    .. math:: f(t) = a d^k, \qquad k \text{ boundaries at or before } t

    Parameters
    ----------
    start : float
        The value :math:`a` at step 0. Finite.
    factor : float
        The factor :math:`d`. Greater than 0.
    boundaries : tuple of int
        The steps, in increasing order, each at least 1, at which the new value applies. The schedule ends at the last
        one.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.
    """

    start: float = setting(range=FINITE)
    factor: float = setting(default=0.1, range=POSITIVE)
    boundaries: tuple[int, ...] = setting(range=_Rising(), kw_only=True)

    @property
    def length(self) -> float:
        """The last boundary."""
        return self.boundaries[-1]

    def at(self, step: int) -> float:
        """Return the value between the boundaries that the step is between.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        return scaled(self.start, self.factor, bisect.bisect_right(self.boundaries, step))


class piecewise(Schedule):
    """A constant value for each of some pieces.

    Parameters
    ----------
    levels : tuple of float
        The values: one more than there are boundaries. Finite.
    boundaries : tuple of int
        The steps at which the second, the third and later levels begin, in increasing order, each at least 1. The
        schedule ends at the last one.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type or out of range; or there are too many or too few.

    Examples
    --------
    >>> from xpopt.schedulers import piecewise
    >>> piecewise(levels=(1.0, 0.5, 0.1), boundaries=(2, 3)).values(5)
    array([1. , 1. , 0.5, 0.1, 0.1])
    """

    levels: tuple[float, ...] = setting(range=_Levels())
    boundaries: tuple[int, ...] = setting(range=_Rising())

    @classmethod
    def _check_together(cls, values: Any) -> None:
        levels, boundaries = values["levels"], values["boundaries"]
        if len(levels) != len(boundaries) + 1:
            raise ValueError(
                f"{cls.__name__}: {len(levels)} levels and {len(boundaries)} boundaries; wanted one level more than "
                f"boundaries"
            )

    @property
    def length(self) -> float:
        """The last boundary."""
        return self.boundaries[-1]

    def at(self, step: int) -> float:
        """Return the value of the piece.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        return self.levels[bisect.bisect_right(self.boundaries, step)]
