"""Gradients clipped element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import EPS
from .._settings.setting import setting
from .base import Transform


class ClipValue(Transform):
    r"""Move each element of the gradient to the nearest number in :math:`[-c, c]`.

    Parameters
    ----------
    clip_value : float
        The largest magnitude :math:`c`, in units of the gradient. Finite, greater than 0.

    Raises
    ------
    TypeError, ValueError
        `clip_value` is not a number, or out of range.
    """

    clip_value: float = setting(range=EPS)

    keyword = "clip_value"
    measured = True

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Array:
        """The gradient within the two ends; NaN stays."""
        grad = xp.where(grad > h.clip_value, h.clip_value, grad)
        clipped: Array = xp.where(grad < -h.clip_value, -h.clip_value, grad)
        return clipped

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """Of any gradient, nothing larger comes out."""
        return math.inf if h.clip_value <= largest else largest
