"""Yogi."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class YogiState(NamedTuple):
    """What Yogi remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array = slot(start="initial")  # like param; follows the squared gradients, starts at `initial`, never negative


class Yogi(OptimizerBase):
    r"""Adam with a second moment that moves towards the squared gradient by a fraction of that square.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= v_{t-1} - (1 - \beta_2) \, \mathrm{sign}(v_{t-1} - g_t^2) \, g_t^2 \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \,
            \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the mean, :math:`\beta_1`, and how slowly the variance follows, :math:`\beta_2`, in [0, 1).
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype. The paper advises 0.001.
    initial : float
        The start of each variance, in squared units of the gradient. At least 0.
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
    This is Algorithm 2 of [1]_ with Adam's bias corrections, as in optax. In optax the mean also starts at
    ``initial_accumulator_value``; with 0, both are the same.

    References
    ----------
    .. [1] Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Yogi(lr=0.1, eps=0.5, initial=0.0)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.95, 2.05])
    """

    lr: float = setting(default=0.01)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=0.001, range=EPS)
    initial: float = setting(default=1e-6, range=NON_NEGATIVE)

    slots = YogiState
    moments = ("var",)

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: YogiState, h: Scalars) -> tuple[Array, YogiState]:
        """Algorithm 2 of Zaheer et al., with Adam's corrections."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        square = grad * grad
        var = s.var - (1 - h.decay2) * xp.sign(s.var - square) * square
        step = h.lr / (1 - h.decay1**h.t)
        scale = 1 / (1 - h.decay2**h.t)
        return param - step * mean / (xp.sqrt(scale * var) + h.eps), YogiState(mean, var)
