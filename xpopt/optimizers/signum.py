"""SignSGD with momentum."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY
from .._settings.setting import setting
from .base import OptimizerBase


class SignumState(NamedTuple):
    """What Signum remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0


class Signum(OptimizerBase):
    r"""Step by the learning rate along the sign of the running mean of the gradient.

    .. math::

        m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
        \theta_t &= \theta_{t-1} - \delta \, \mathrm{sign}(m_t)

    Parameters
    ----------
    lr : float
        Learning rate :math:`\delta`, in units of the parameter: the length of each step. Finite, at least 0. A schedule
        that states its own rate wins over it.
    momentum : float
        Decay :math:`\beta` of the running mean, in [0, 1): about ``1 / (1 - momentum)`` steps of memory. With 0 this is
        signSGD.
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
    An element moves by `lr`, however large its gradient is; where the mean is 0 it does not move. For a complex
    parameter, the sign is that of each part.

    References
    ----------
    .. [1] Bernstein et al., "signSGD: Compressed Optimisation for Non-Convex Problems", ICML 2018, arXiv:1802.04434,
       Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Signum(lr=0.125)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.25]), "W")
    array([0.875, 2.125])
    """

    lr: float = setting(default=1e-4)
    momentum: float = setting(default=0.9, range=DECAY)

    slots = SignumState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: SignumState, h: Scalars) -> tuple[Array, SignumState]:
        """Algorithm 2 of Bernstein et al."""
        mean = h.momentum * s.mean + (1 - h.momentum) * grad
        return param - h.lr * xp.sign(mean), SignumState(mean)
