"""NovoGrad."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import one, slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class NovoGradState(NamedTuple):
    """What NovoGrad remembers of each parameter."""

    mean: Array  # like param; sum of the normalized gradients, of which older ones fade, starts at 0
    var: Array = slot(shape=one)  # of shape (); running mean of the squared norms of the gradients, starts at 0


class NovoGrad(OptimizerBase):
    r"""Step along gradients that are divided by a running mean of their norms, one number for each parameter.

    .. math::

        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) \lVert g_t \rVert^2, \qquad v_1 = \lVert g_1 \rVert^2 \\
        m_t &= \beta_1 m_{t-1} + \frac{g_t}{\sqrt{v_t} + \epsilon} + \lambda \theta_{t-1} \\
        \theta_t &= \theta_{t-1} - \eta m_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the sum and of the mean of squared norms, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about
        ``1 / (1 - decay)`` steps of memory.
    eps : float
        :math:`\epsilon`, added outside the root, in units of the gradient's norm. Greater than 0, and must not round
        to 0 in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    weight_decay : float
        The decay :math:`\lambda`, at least 0. It is this setting, and not the option that other optimizers have.
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
    It keeps half of what Adam does. The squared norm is infinite in float32 where the norm is above 1.8e19.

    References
    ----------
    .. [1] Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training of Deep
       Networks", 2019, arXiv:1905.11286, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> opt = NovoGrad(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([3.0, -4.0]), "W").round(6)
    array([0.94, 2.08])
    """

    lr: float = setting(default=0.01)
    decay1: float = setting(default=0.95, range=DECAY)
    decay2: float = setting(default=0.98, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = NovoGradState

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The weight of this gradient in the mean of squared norms."""
        return {"part": 1.0 if h.t == 1 else 1 - h.decay2}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: NovoGradState, h: Scalars) -> tuple[Array, NovoGradState]:
        """Algorithm 1 of Ginsburg et al."""
        norm = xp.linalg.vector_norm(grad)
        var = h.decay2 * s.var + h.part * norm * norm
        mean = h.decay1 * s.mean + (grad / (xp.sqrt(var) + h.eps) + h.weight_decay * param)
        return param - h.lr * mean, NovoGradState(mean, var)
