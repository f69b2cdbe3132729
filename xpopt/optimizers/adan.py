"""Adan."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AdanState(NamedTuple):
    """What Adan remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    slope: Array  # like param; running mean of the differences of successive gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients ahead, starts at 0, never negative
    last: Array  # like param; the gradient before


class Adan(OptimizerBase):
    r"""Step along the running means of the gradient and of its changes, scaled by the root mean square of both.

    .. math::

        d_t &= g_t - g_{t-1}, \qquad d_1 = 0 \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t \\
        n_t &= \beta_3 n_{t-1} + (1 - \beta_3) (g_t + \beta_2 d_t)^2 \\
        \theta_t &= \theta_{t-1} - \eta \, \frac{m_t / (1 - \beta_1^t) + \beta_2 v_t / (1 - \beta_2^t)}
            {\sqrt{n_t / (1 - \beta_3^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2, decay3 : float
        Decay of the means of gradients, of their differences and of squares, :math:`\beta_1`, :math:`\beta_2` and
        :math:`\beta_3`, in [0, 1): about ``1 / (1 - decay)`` steps of memory.
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
    Algorithm 1 of [1]_ writes :math:`1 - \beta` for what is :math:`\beta` here, and starts its means at the first
    gradient; the bias corrections, and means that start at 0, are those of its authors' code. Weight decay is
    subtracted in addition to the step, as in all optimizers here and with the authors' ``no_prox=True``; the paper
    divides by :math:`1 + \eta \lambda` instead. There are no restarts. optax has :math:`1 - \beta_2` in place of the
    two factors :math:`\beta_2` of :math:`d_t` and :math:`v_t`, so its steps differ.

    References
    ----------
    .. [1] Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models", IEEE TPAMI
       46(12), 2024, arXiv:2208.06677, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Adan(lr=0.1)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W")
    >>> W.round(6), opt.update(W, np.array([0.25, -0.5]), "W").round(6)
    (array([0.9, 2.1]), array([0.82805, 2.2    ]))
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.98, range=DECAY)
    decay2: float = setting(default=0.92, range=DECAY)
    decay3: float = setting(default=0.99, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)

    slots = AdanState
    moments = ("var",)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """Whether there is a gradient before."""
        return {"later": float(h.t > 1)}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdanState, h: Scalars) -> tuple[Array, AdanState]:
        """Algorithm 1 of Xie et al., with bias corrections."""
        change = h.later * (grad - s.last)
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        slope = h.decay2 * s.slope + (1 - h.decay2) * change
        ahead = grad + h.decay2 * change
        var = h.decay3 * s.var + (1 - h.decay3) * ahead * ahead
        of_mean = h.lr / (1 - h.decay1**h.t)
        of_slope = h.lr * h.decay2 / (1 - h.decay2**h.t)
        scale = 1 / (1 - h.decay3**h.t)
        step = (of_mean * mean + of_slope * slope) / (xp.sqrt(scale * var) + h.eps)
        return param - step, AdanState(mean, slope, var, grad)
