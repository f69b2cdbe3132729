"""LAMB."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class LAMBState(NamedTuple):
    """What LAMB remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class LAMB(OptimizerBase):
    r"""Step along Adam's direction, scaled to the norm of each parameter.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        u_t &= \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \eta \, \frac{\lVert \theta_{t-1} \rVert}{\lVert u_t \rVert} \, u_t

    Where a norm is 0, the ratio is 1.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`: the step as a fraction of the parameter's norm. Finite, at least 0. A schedule that
        states its own rate wins over it.
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
    weight_decay : float
        The decay :math:`\lambda`, at least 0: a part of the direction, inside the ratio. It is this setting, and not
        the option that other optimizers have.
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
    The norms are those of one parameter. In [1]_ a function :math:`\phi` is applied to the norm of the parameter; here
    it is the identity, as in the authors' experiments.

    References
    ----------
    .. [1] You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR 2020,
       arXiv:1904.00962, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = LAMB(lr=0.1)
    >>> opt.update(np.array([3.0, 4.0]), np.array([0.5, -0.5]), "W").round(6)
    array([2.646447, 4.353553])
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-6, range=EPS)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = LAMBState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: LAMBState, h: Scalars) -> tuple[Array, LAMBState]:
        """Algorithm 2 of You et al."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        correction = 1 / (1 - h.decay1**h.t)
        scale = 1 / (1 - h.decay2**h.t)
        step = correction * mean / (xp.sqrt(scale * var) + h.eps) + h.weight_decay * param
        norm, length = xp.linalg.vector_norm(param), xp.linalg.vector_norm(step)
        # the ratio of the norms alone may overflow
        moved = xp.where((norm == 0) | (length == 0), step, step / length * norm)
        return param - h.lr * moved, LAMBState(mean, var)
