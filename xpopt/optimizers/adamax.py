"""Adamax."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AdamaxState(NamedTuple):
    """What Adamax remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    top: Array  # like param; the largest gradient so far, of which the past decays; starts at 0, never negative


class Adamax(OptimizerBase):
    r"""Step along the running mean of the gradient, scaled by a decaying maximum of the gradients.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \, \frac{m_t}{u_t}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the mean and of the largest gradient, :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
    eps : float
        :math:`\epsilon`, added to the magnitude of the gradient, in its units. Greater than 0, and must not round to 0
        in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range.

    Notes
    -----
    Algorithm 2 of [1]_ has no :math:`\epsilon`, and divides 0 by 0 where a gradient has always been 0. It is added here
    as PyTorch and optax do; Keras adds it to :math:`u_t`.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Adamax(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.9, 2.1])
    """

    lr: float = setting(default=0.002)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)

    slots = AdamaxState
    moments = ("top",)

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdamaxState, h: Scalars) -> tuple[Array, AdamaxState]:
        """Algorithm 2 of Kingma and Ba."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        top = xp.maximum(h.decay2 * s.top, xp.abs(grad) + h.eps)
        step = h.lr / (1 - h.decay1**h.t)
        return param - step * mean / top, AdamaxState(mean, top)
