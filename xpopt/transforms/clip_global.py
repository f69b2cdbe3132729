"""Gradients clipped by the norm of the whole model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import EPS
from .._settings.setting import setting
from .base import Transform


class ClipGlobal(Transform):
    r"""Scale the gradients of a model to a joint L2 norm of at most :math:`c`.

    .. math:: g_t \leftarrow \min\left(1, \frac{c}{n}\right) g_t, \qquad n^2 = \sum_i \lVert g_{t, i} \rVert^2

    where the sum is over all parameters of a call of `update_all`. All elements are NaN where the norm is not finite.

    Parameters
    ----------
    clip_global : float
        The largest norm :math:`c`, in units of the gradient. Finite, greater than 0.

    Raises
    ------
    TypeError, ValueError
        `clip_global` is not a number, or out of range.

    References
    ----------
    .. [1] Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
       arXiv:1211.5063, Algorithm 1, with the norm of all parameters.
    """

    clip_global: float = setting(range=EPS)

    keyword = "clip_global"

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """The gradient within a norm of all."""
        # by the root of the factor, twice: the factor may be too small for the dtype, and the norm too large
        root, of_bound = h.model.root_of_norm(grad), h.clip_global**0.5
        factor = xp.where(root <= of_bound, 1.0, of_bound / root)
        within: Array = grad * factor * factor
        return within

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """Of any gradient, nothing larger comes out."""
        return math.inf if h.clip_global <= largest else largest
