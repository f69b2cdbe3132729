"""Maps to intervals, which are bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._settings.setting import setting
from .._settings.text import naming
from ..transforms.base import Transform
from ..transforms.bounds import HIGH, LOW, Bounds
from .base import Proximal


class box(Proximal):  # noqa: N801 - a map is called like a function
    """The nearest point between two bounds: as `prox` or `bounds` of an optimizer, the option ``bounds=(low, high)``.

    Parameters
    ----------
    low, high : float, array or None
        The bounds, as for the option: an array has one for each element, None stands for an open side.

    Raises
    ------
    TypeError, ValueError
        A bound is not a number, `low` is above `high`, or they are arrays of two shapes.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.prox.box(0, 1)(np, np.array([-0.5, 0.5, 1.5]))
    array([0. , 0.5, 1. ])
    """

    low: Any = setting(default=None, range=LOW)
    high: Any = setting(default=None, range=HIGH)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        with naming(cls.__name__):
            Bounds._check_together(values)

    def transform(self) -> Transform:
        """Return the bounds."""
        return Bounds(self.low, self.high)


class nonnegative(Proximal):  # noqa: N801
    """The nearest point without negative elements: ``box(0, None)``.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> xpopt.SGD(lr=1.0, prox=xpopt.prox.nonnegative).update(np.ones(2), np.array([0.5, 2.0]), "W")
    array([0.5, 0. ])
    """

    def transform(self) -> Transform:
        """Return the bounds."""
        return Bounds(0.0, None)
