"""AMSGrad."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AMSGradState(NamedTuple):
    """What AMSGrad remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative
    top: Array  # like param; the largest `var` so far


class AMSGrad(OptimizerBase):
    r"""Step as Adam does, divided by the root of the largest running mean of the squared gradient so far.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \hat v_t &= \max(\hat v_{t-1}, v_t) \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \,
            \frac{m_t}{\sqrt{\hat v_t / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
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
    This is Algorithm 2 of [1]_ without its projection, and with what it leaves out of Adam: the bias corrections and
    :math:`\epsilon`. The largest mean is that of :math:`v_t` before its correction, as in PyTorch's
    ``Adam(amsgrad=True)``; other libraries correct it first, or not at all.

    References
    ----------
    .. [1] Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", ICLR 2018, arXiv:1904.09237.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AMSGrad(lr=0.1)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W")
    >>> W.round(6), opt.update(W, np.array([0.05, -0.05]), "W").round(6)
    (array([0.9, 2.1]), array([0.825919, 2.174081]))
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)

    slots = AMSGradState
    moments = ("var", "top")

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AMSGradState, h: Scalars) -> tuple[Array, AMSGradState]:
        """Algorithm 2 of Reddi, Kale and Kumar, with Adam's corrections."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        top = xp.maximum(s.top, var)
        step = h.lr / (1 - h.decay1**h.t)
        scale = 1 / (1 - h.decay2**h.t)
        return param - step * mean / (xp.sqrt(scale * top) + h.eps), AMSGradState(mean, var, top)

    @staticmethod
    def element_rate(xp: Namespace, s: AMSGradState, h: Scalars) -> Array:
        """The rate over the corrected root of the largest."""
        scale = 1 / (1 - h.decay2**h.t)
        return h.lr / (xp.sqrt(scale * s.top) + h.eps)
