"""RMSProp."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class RMSPropState(NamedTuple):
    """What RMSProp remembers of each parameter."""

    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class RMSProp(OptimizerBase):
    r"""Scale each step by the running root mean square of the gradient.

    .. math::

        c_t &= \rho c_{t-1} + (1 - \rho) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta_t \frac{g_t}{\sqrt{c_t} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay : float
        Decay :math:`\rho` of the running mean, in [0, 1): about ``1 / (1 - decay)`` steps of memory.
    eps : float
        :math:`\epsilon`, added outside the root, in units of the gradient. Greater than 0, and must not round to 0 in
        the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is no number.
    ValueError
        A value out of its range.

    References
    ----------
    .. [1] Tieleman and Hinton, "Lecture 6.5: rmsprop", COURSERA: Neural Networks for Machine Learning, 2012, slide 29.

    Examples
    --------
    >>> import numpy as np
    >>> opt = RMSProp(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.683772, 2.316228])
    """

    lr: float = setting(default=0.001)
    decay: float = setting(default=0.9, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)

    slots = RMSPropState
    entry = "array"

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: RMSPropState, h: Scalars) -> tuple[Array, RMSPropState]:
        """The lecture's equation."""
        var = h.decay * s.var + (1 - h.decay) * grad * grad
        return param - h.lr * grad / (xp.sqrt(var) + h.eps), RMSPropState(var)
