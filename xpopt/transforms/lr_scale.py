"""A factor on the learning rate."""

from __future__ import annotations

from .._arrays.typing import Scalars
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import Transform


class LrScale(Transform):
    """Multiply the learning rate of each step, for the rule and for what goes with it.

    Parameters
    ----------
    lr_scale : float
        The factor. Finite, at least 0.

    Raises
    ------
    TypeError, ValueError
        `lr_scale` is no number, or out of range.
    """

    lr_scale: float = setting(default=1.0, range=NON_NEGATIVE)

    keyword = "lr_scale"

    @staticmethod
    def rate(h: Scalars) -> float:
        """The rate that everything inside has."""
        rate: float = h.lr * h.lr_scale
        return rate
