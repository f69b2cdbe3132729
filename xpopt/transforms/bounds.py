"""Parameters that stay between two bounds."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from .._arrays.elements import FORMATS, NumberOrArray, PerElement, rounded_up
from .._arrays.library import PAIRS
from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots
from .._graph.slots import Slot, state_class
from .._settings.ranges import OrNone, Range
from .._settings.setting import setting
from .._settings.text import short
from .base import Transform

End = float | PerElement | None

LOW, HIGH = OrNone(NumberOrArray(Range(), -math.inf)), OrNone(NumberOrArray(Range(), math.inf))


class Bounds(Transform):
    r"""Project each parameter onto an interval after the step, and zero gradients that point out of it at a bound.

    .. math::

        g_t &\leftarrow 0 \quad \text{where } \theta_{t-1} \le a, g_t > 0 \text{ or } \theta_{t-1} \ge b, g_t < 0 \\
        \theta_t &\leftarrow \min(\max(\theta_t, a), b)

    The first line is applied before the rule, so that its means and velocities do not grow at a bound.

    Parameters
    ----------
    low, high : float, array or None
        The bounds :math:`a` and :math:`b`: a number, or an array of the parameter's shape, in which infinity leaves an
        element open; None for an open side. A bound that is not a number of the parameter's dtype is rounded inward, so
        that a rounded parameter is never outside.

    Raises
    ------
    TypeError, ValueError
        A bound is not a number, `low` is above `high`, or they are arrays of two shapes.

    References
    ----------
    .. [1] Bertsekas, "On the Goldstein-Levitin-Polyak gradient projection method", IEEE Transactions on Automatic
       Control 21(2), 1976, for the projected step.
    """

    low: Any = setting(default=None, range=LOW)
    high: Any = setting(default=None, range=HIGH)

    keyword = "bounds"
    takes_schedules = False  # they are rounded inward when they are given
    measured = True
    rounded = ("low", "high")

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        problem = _crossed(values["low"], values["high"])
        if problem:
            raise ValueError(f"{problem}; wanted (low, high), with None for an open side")

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the transform of a pair.

        Parameters
        ----------
        value : tuple or Bounds
            The lower and the upper bound, or the transform itself.

        Returns
        -------
        Bounds
            The transform.
        """
        return value if isinstance(value, cls) else cls(*value)

    @property
    def before(self) -> Any:
        """The first line, for the sides that there are."""
        return _blocking(_kind(self.low), _kind(self.high))

    @property
    def after(self) -> Any:
        """The second line, for the sides that there are."""
        return projecting(self.project)

    @property
    def project(self) -> Any:
        """The same of any array."""
        return _within(_kind(self.low), _kind(self.high))

    def state(self) -> type[Any]:
        """Return the class of the arrays among the bounds."""
        return _arrays(_kind(self.low), _kind(self.high))

    def numbers(self) -> dict[str, Any]:
        """Return the bounds, and those of each dtype where they are numbers."""
        found: dict[str, Any] = {}
        for name, end, sign in (("low", self.low, 1), ("high", self.high, -1)):
            if isinstance(end, PerElement):
                found[self.formula().number(name)] = end.rounded("up" if sign > 0 else "down")
                continue
            for dtype in ("", *FORMATS):
                inward = end if end is None or not dtype else sign * float(rounded_up(sign * end, dtype))
                found[self.formula().number(name, dtype)] = inward
        return found

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise unless there is a finite number of a dtype between them.

        Parameters
        ----------
        dtype : str
            The parameter's.
        what : str
            What it is called, for the message.

        Raises
        ------
        ValueError
            There is none.
        TypeError
            The dtype is complex.
        """
        if dtype in PAIRS:
            raise TypeError(
                f"bounds=({short(self.low)}, {short(self.high)}): complex numbers have no order, and {what} is "
                f"{dtype}; exclude them by groups=, or use a map of complex numbers, such as prox=magnitude(1.0)"
            )
        low = rounded_up(-math.inf if self.low is None else self.low, dtype)
        high = -rounded_up(-math.inf if self.high is None else -np.asarray(self.high), dtype)
        if np.any((low > high) | (low == math.inf) | (high == -math.inf)):
            raise ValueError(
                f"bounds=({self.low!r}, {self.high!r}) have no number of {dtype} between them, the dtype of {what}; "
                f"widen them"
            )


class BoundsCheck:
    """What the option may be: None, or a pair."""

    def check(self, owner: str, name: str, value: object) -> tuple[End, End] | None:
        """Return the pair of bounds, with None for an open side, or say what is wrong with it.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        tuple or None
            The pair; None without any bound.

        Raises
        ------
        TypeError, ValueError
            It is no pair of numbers or arrays, or they are crossed.
        """
        if value is None:
            return None
        if not isinstance(value, tuple | list) or len(value) != 2:
            by_name = f"; by name: groups={{'W': {{{name!r}: ...}}}}" if isinstance(value, Mapping) else ""
            raise TypeError(
                f"{owner}: {name}={short(value)} is not a pair; wanted (low, high), with None for an open side, or "
                f"None{by_name}"
            )
        low, high = (
            None if isinstance(end, numbers.Real) and end == side else one.check(owner, f"{what} end of {name}", end)
            for end, side, one, what in zip(value, (-math.inf, math.inf), (LOW, HIGH), ("low", "high"), strict=True)
        )
        if _crossed(low, high):
            raise ValueError(
                f"{owner}: {name}={short(value)} are crossed; wanted (low, high), the lower one first"
                if _kind(low) == _kind(high) == "number"
                else f"{owner}: {name}: {_crossed(low, high)}; wanted (low, high), the lower one first"
            )
        return None if low is None and high is None else (low, high)


def _crossed(low: End, high: End) -> str:
    """Say where a lower bound is above an upper one, or that they are of two shapes; "" if they are right."""
    if low is None or high is None:
        return ""
    below, above = np.asarray(low), np.asarray(high)
    if isinstance(low, PerElement) and isinstance(high, PerElement) and low.shape != high.shape:
        return f"the low end is of shape {low.shape}, and the high end of {high.shape}"
    crossed = np.asarray(below > above)
    if not crossed.any():
        return ""
    at = tuple(map(int, np.argwhere(crossed)[0]))
    below, above = (np.broadcast_to(x, crossed.shape)[at].item() for x in (below, above))
    return f"low={below!r} is above high={above!r}" + (f" at {at}" if at else "")


def _kind(end: End) -> str:
    return "" if end is None else "array" if isinstance(end, PerElement) else "number"


@functools.cache
def _arrays(low: str, high: str) -> type[Any]:
    ends = {"bounds_low": low, "bounds_high": high}
    slots = {name: Slot(name.removeprefix("bounds_"), constant=True) for name, kind in ends.items() if kind == "array"}
    return state_class("Ends", slots) if slots else NoSlots


@functools.cache
def _blocking(low: str, high: str) -> Callable[..., Any]:
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Any:
        if low:
            grad = xp.where((param <= (s.bounds_low if low == "array" else h.low)) & (grad > 0.0), 0.0, grad)
        if high:
            grad = xp.where((param >= (s.bounds_high if high == "array" else h.high)) & (grad < 0.0), 0.0, grad)
        return grad

    return before


@functools.cache
def _within(low: str, high: str) -> Callable[..., Any]:
    def project(xp: Namespace, x: Any, s: Any, h: Scalars) -> Any:
        if low:
            end = s.bounds_low if low == "array" else h.low
            x = xp.where(x < end, end, x)
        if high:
            end = s.bounds_high if high == "array" else h.high
            x = xp.where(x > end, end, x)
        return x

    return project


@functools.cache
def projecting(project: Callable[..., Any]) -> Callable[..., tuple[Array, Any]]:
    """Return the `after` that puts a map behind a rule, one for each map.

    Parameters
    ----------
    project : callable
        The map.

    Returns
    -------
    callable
        What a transform has as `after`.
    """

    def after(xp: Namespace, new: Any, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Any, Any]:
        return project(xp, new, s, h), s

    return after
