"""Parameters that stay between two bounds."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import OrNone, Range
from .._settings.setting import setting
from .._settings.text import short
from .base import Transform

Pair = tuple[float | None, float | None]

_END = OrNone(Range())
_FORMATS = {
    "float16": (11, -24, 65504.0),
    "bfloat16": (8, -133, 2.0**128 - 2.0**120),
    "float32": (24, -149, 2.0**128 - 2.0**104),
}
"""By dtype, the binary digits, the exponent of the smallest number, and the largest number."""


class Bounds(Transform):
    r"""Project each parameter to an interval after the step, and let no gradient push through a bound.

    .. math::

        g_t &\leftarrow 0 \quad \text{where } \theta_{t-1} \le a, g_t > 0 \text{ or } \theta_{t-1} \ge b, g_t < 0 \\
        \theta_t &\leftarrow \min(\max(\theta_t, a), b)

    The first line comes before the rule, so that its means and velocities do not grow at a bound.

    Parameters
    ----------
    low, high : float or None
        The bounds :math:`a` and :math:`b`; None for an open side. A bound that is no number of the parameter's dtype is
        rounded inward, so that no rounding leads out.

    Raises
    ------
    TypeError, ValueError
        A bound is no number, or `low` is above `high`.

    References
    ----------
    .. [1] Bertsekas, "On the Goldstein-Levitin-Polyak gradient projection method", IEEE Transactions on Automatic
       Control 21(2), 1976, for the projected step.
    """

    low: float | None = setting(default=None, range=_END)
    high: float | None = setting(default=None, range=_END)

    keyword = "bounds"
    measured = True
    rounded = ("low", "high")

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        low, high = values["low"], values["high"]
        if low is not None and high is not None and low > high:
            raise ValueError(f"low={low!r} is above high={high!r}; wanted (low, high), with None for an open side")

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
        return _blocking(self.low is not None, self.high is not None)

    @property
    def after(self) -> Any:
        """The second line, for the sides that there are."""
        return _projecting(self.low is not None, self.high is not None)

    def numbers(self) -> dict[str, Any]:
        """Return the bounds, and those of each dtype."""
        found = super().numbers()
        number = self.formula().number
        for dtype in _FORMATS:
            low, high = self._within(dtype)
            found |= {number("low", dtype): low, number("high", dtype): high}
        return found

    def check_dtype(self, dtype: str, what: str) -> None:
        """Raise a ValueError if there is no finite number of a dtype between them.

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
        """
        low, high = self._within(dtype)
        lowest = -math.inf if low is None else low
        highest = math.inf if high is None else high
        if lowest > highest or lowest == math.inf or highest == -math.inf:
            raise ValueError(
                f"bounds=({self.low!r}, {self.high!r}) have no number of {dtype} between them, the dtype of {what}; "
                f"widen them"
            )

    def _within(self, dtype: str) -> Pair:
        low, high = self.low, self.high
        if dtype not in _FORMATS:
            return low, high
        return None if low is None else _rounded_up(low, dtype), None if high is None else -_rounded_up(-high, dtype)


class BoundsCheck:
    """What the option may be: None, or a pair."""

    def check(self, owner: str, name: str, value: object) -> Pair | None:
        """Return the pair of floats, with None for an open side, or say what is wrong with it.

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
            It is no pair of numbers, or they are crossed.
        """
        if value is None:
            return None
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise TypeError(
                f"{owner}: {name}={short(value)} is no pair; wanted (low, high), with None for an open side, or None"
            )
        open_sides = (-math.inf, math.inf)
        pair = [
            None
            if isinstance(end, numbers.Real) and end == side
            else _END.check(owner, f"{end_name} end of {name}", end)
            for end, side, end_name in zip(value, open_sides, ("low", "high"), strict=True)
        ]
        low, high = pair
        if low is not None and high is not None and low > high:
            raise ValueError(f"{owner}: {name}={short(value)} are crossed; wanted (low, high), the lower one first")
        return None if low is None and high is None else (low, high)


@functools.cache
def _blocking(has_low: bool, has_high: bool) -> Callable[..., Any]:
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Any:
        if has_low:
            grad = xp.where((param <= h.low) & (grad > 0.0), 0.0, grad)
        if has_high:
            grad = xp.where((param >= h.high) & (grad < 0.0), 0.0, grad)
        return grad

    return before


@functools.cache
def _projecting(has_low: bool, has_high: bool) -> Callable[..., tuple[Array, Any]]:
    def after(xp: Namespace, new: Any, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Any, Any]:
        if has_low:
            new = xp.where(new < h.low, h.low, new)
        if has_high:
            new = xp.where(new > h.high, h.high, new)
        return new, s

    return after


def _rounded_up(value: float, dtype: str) -> float:
    """Return the smallest number of a dtype that is not below `value`, or infinity."""
    digits, smallest, largest = _FORMATS[dtype]
    unit = math.ldexp(1.0, max(math.frexp(value)[1] - digits, smallest))
    found = math.ceil(value / unit) * unit
    return math.inf if found > largest else max(found, -largest)
