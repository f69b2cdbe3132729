"""A factor on the learning rate, or one for each element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.elements import NumberOrArray, PerElement
from .._arrays.typing import Array, Scalars
from .._graph.rule import NoSlots
from .._graph.slots import Slot, state_class
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import Transform

FACTOR = NumberOrArray(NON_NEGATIVE)

_Factors = state_class("Factors", {"lr_scale": Slot("lr_scale", constant=True)})


class LrScale(Transform):
    """Multiply the learning rate of each step, for the rule and for other transforms.

    Parameters
    ----------
    lr_scale : float or array
        The factor: a number, or an array of the parameter's shape. Finite, at least 0.

    Raises
    ------
    TypeError, ValueError
        `lr_scale` is not a number, or out of range.
    """

    lr_scale: Any = setting(default=1.0, range=FACTOR)

    keyword = "lr_scale"

    @property
    def rate(self) -> Any:
        """The rate that everything inside has."""
        return None if isinstance(self.lr_scale, PerElement) else _rate

    @property
    def rates(self) -> Any:
        """The same for each element."""
        return _rates if isinstance(self.lr_scale, PerElement) else None

    @property
    def limit(self) -> Any:
        """Products with a rate that is larger are larger as well."""
        return _limit if isinstance(self.lr_scale, PerElement) else None

    def state(self) -> type[Any]:
        """Return the class of the factors, where they are an array."""
        return _Factors if isinstance(self.lr_scale, PerElement) else NoSlots

    def numbers(self) -> dict[str, Any]:
        """Return the factor; and the largest one, at least 1, where they are an array."""
        found = super().numbers()
        if isinstance(self.lr_scale, PerElement):
            found[self.formula().number("largest")] = float(self.lr_scale.numbers("float64").max(initial=1.0))
        return found


def _rate(h: Scalars) -> float:
    rate: float = h.lr * h.lr_scale
    return rate


def _rates(s: Any, h: Scalars) -> Array:
    rates: Array = h.lr * s.lr_scale
    return rates


def _limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
    return largest / h.largest
