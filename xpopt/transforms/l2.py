"""The gradient of an L2 penalty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import Transform


class L2(Transform):
    r"""Add to the gradient that of the penalty :math:`\frac{\lambda}{2} \lVert \theta \rVert^2`.

    .. math:: g_t \leftarrow g_t + \lambda \theta_{t-1}

    Parameters
    ----------
    l2 : float
        The weight :math:`\lambda` of the penalty, in units of the gradient per unit of the parameter. Finite, at least
        0.

    Raises
    ------
    TypeError, ValueError
        `l2` is not a number, or out of range.
    """

    l2: float = setting(default=0.0, range=NON_NEGATIVE)

    keyword = "l2"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """The gradient of loss and penalty."""
        return grad + h.l2 * param

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """Of the sum, at most."""
        return largest - h.l2 * size()
