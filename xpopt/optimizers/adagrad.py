"""AdaGrad."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AdaGradState(NamedTuple):
    """What AdaGrad remembers of each parameter."""

    total: Array  # like param; sum of the squared gradients, starts at 0, never negative


class AdaGrad(OptimizerBase):
    r"""Scale each step by the root of the sum of all squared gradients so far.

    .. math::

        c_t &= c_{t-1} + g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta_t \frac{g_t}{\sqrt{c_t} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter: the length of the first step. Finite, at least 0. A
        schedule that states its own rate wins over it.
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
    .. [1] Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR
       12, 2011, the diagonal matrices of Algorithm 1, with :math:`\epsilon` for :math:`\delta`.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AdaGrad(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.9, 2.1])
    """

    lr: float = setting(default=0.01)
    eps: float = setting(default=1e-7, range=EPS)

    slots = AdaGradState
    entry = "array"

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdaGradState, h: Scalars) -> tuple[Array, AdaGradState]:
        """The diagonal form of Duchi, Hazan and Singer."""
        total = s.total + grad * grad
        return param - h.lr * grad / (xp.sqrt(total) + h.eps), AdaGradState(total)
