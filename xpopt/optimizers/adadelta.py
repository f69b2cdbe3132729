"""Adadelta."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AdadeltaState(NamedTuple):
    """What Adadelta remembers of each parameter."""

    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative
    delta: Array  # like param; running mean of the squared updates before the rate, starts at 0, never negative


class Adadelta(OptimizerBase):
    r"""Scale the gradient by the ratio of the running root mean squares of past updates and of gradients.

    .. math::

        v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
        u_t &= \frac{\sqrt{d_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} \, g_t \\
        d_t &= \rho d_{t-1} + (1 - \rho) u_t^2 \\
        \theta_t &= \theta_{t-1} - \eta u_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, a factor without a unit; 1 in the paper. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay : float
        Decay :math:`\rho` of both running means, in [0, 1): about ``1 / (1 - decay)`` steps of memory.
    eps : float
        :math:`\epsilon`, added inside both roots; its square root is of the order of the first steps. Greater than 0,
        and must not round to 0 in the compute dtype.
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
    This is Algorithm 1 of [1]_ with a rate in front of the update, as in PyTorch and optax; the running mean of squared
    updates does not include the rate. PyTorch's default decay is 0.9, the paper's experiments have 0.95.

    References
    ----------
    .. [1] Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012, arXiv:1212.5701, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Adadelta()
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.995528, 2.004472])
    """

    lr: float = setting(default=1.0)
    decay: float = setting(default=0.95, range=DECAY)
    eps: float = setting(default=1e-6, range=EPS)

    slots = AdadeltaState
    moments = ("var", "delta")

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdadeltaState, h: Scalars) -> tuple[Array, AdadeltaState]:
        """Algorithm 1 of Zeiler."""
        var = h.decay * s.var + (1 - h.decay) * grad * grad
        update = xp.sqrt(s.delta + h.eps) * grad / xp.sqrt(var + h.eps)
        delta = h.decay * s.delta + (1 - h.decay) * update * update
        return param - h.lr * update, AdadeltaState(var, delta)
