"""Decoupled weight decay."""

from __future__ import annotations

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import Transform


class WeightDecay(Transform):
    r"""Pull each parameter towards zero, beside the step of the rule.

    .. math:: \theta_t = r(\theta_{t-1}) - \alpha_t \lambda \theta_{t-1}

    where :math:`r` is the step of the rule. The gradient that the rule sees has no part in it, so that a rule which
    divides by the size of its gradients decays all elements alike.

    Parameters
    ----------
    weight_decay : float
        The decay :math:`\lambda`, times the learning rate :math:`\alpha_t` of the step. Finite, at least 0.

    Raises
    ------
    TypeError, ValueError
        `weight_decay` is no number, or out of range.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, Algorithm 2,
       with its schedule multiplier in the learning rate.
    """

    weight_decay: float = setting(default=0.01, range=NON_NEGATIVE)

    keyword = "weight_decay"

    @staticmethod
    def after(
        xp: Namespace, new: Array, param: Array, grad: Array, s: tuple[()], h: Scalars
    ) -> tuple[Array, tuple[()]]:
        """The decay of Algorithm 2, line 12."""
        return new - h.lr * h.weight_decay * param, s
