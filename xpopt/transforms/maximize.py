"""Gradient ascent."""

from __future__ import annotations

from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import FLAG
from .._settings.setting import setting
from .base import Transform


class Maximize(Transform):
    """Maximize the function whose gradients are passed: the rule receives the negative gradient.

    Decay and penalties still pull towards zero.

    Parameters
    ----------
    maximize : bool
        True.
    """

    maximize: bool = setting(default=True, range=FLAG)

    keyword = "maximize"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """The gradient of the negative function."""
        return -grad
