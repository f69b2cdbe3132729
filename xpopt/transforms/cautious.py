"""Steps only where they have the sign of the gradient."""

from __future__ import annotations

from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import FLAG
from .._settings.setting import setting
from .base import Transform


class Cautious(Transform):
    r"""Omit the step of each element in which it does not have the sign of the gradient.

    .. math:: \theta_t = \theta_{t-1} - u_t \, [u_t g_t > 0]

    where :math:`u_t` is the step of the rule and :math:`g_t` the gradient that it received. The state is updated as
    usual.

    Parameters
    ----------
    cautious : bool
        True.

    Notes
    -----
    In [1]_ the remaining steps are divided by the fraction of elements that have one, so that their sum stays about the
    same. Here they are not scaled, so that each element depends only on itself.

    References
    ----------
    .. [1] Liang, Chen, Liu and Liu, "Cautious Optimizers: Improving Training with One Line of Code", 2024,
       arXiv:2411.16085, Algorithm 1.
    """

    cautious: bool = setting(default=True, range=FLAG)

    keyword = "cautious"

    @staticmethod
    def after(xp: Namespace, new: Array, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        """The mask of Algorithm 1, without its scale."""
        # a choice between new and param would be stored under a mask, which some processors are slow at
        step: Any = param - new
        return param - xp.where(step * grad > 0.0, step, 0.0), s
