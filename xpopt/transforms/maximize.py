"""Up instead of down."""

from __future__ import annotations

from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import FLAG
from .._settings.setting import setting
from .base import Transform


class Maximize(Transform):
    """Go up the function whose gradients come in: what follows gets the negative gradient.

    Decay and penalties pull towards zero all the same.

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
