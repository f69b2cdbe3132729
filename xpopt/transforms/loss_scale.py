"""Gradients of a loss that was multiplied, so that 16 bits hold them: divided by the same number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import POSITIVE
from .._settings.setting import setting
from .base import Transform


class LossScale(Transform):
    r"""Divide the gradient by the number that the loss was multiplied by.

    Parameters
    ----------
    loss_scale : float
        The number. Finite, greater than 0; a power of two changes no digit.

    Raises
    ------
    TypeError, ValueError
        `loss_scale` is no number, or out of range.

    References
    ----------
    .. [1] Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740, section 3.2.
    """

    loss_scale: float = setting(default=2.0**16, range=POSITIVE)

    keyword = "loss_scale"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Array:
        """The gradient of the loss."""
        unscaled: Array = grad * (1 / h.loss_scale)
        return unscaled

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """So much larger may what comes be."""
        return largest * h.loss_scale

    @staticmethod
    def bound(h: Scalars, norm: float) -> float:
        """So much larger may its norm be: engines measure the gradient that comes."""
        bound: float = norm * h.loss_scale
        return bound
