"""RAdam."""

from __future__ import annotations

import math
from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS, Range
from .._settings.setting import setting
from .base import OptimizerBase


class RAdamState(NamedTuple):
    """What RAdam remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class RAdam(OptimizerBase):
    r"""Step as Adam does, rectified for the uncertainty of the variance; at first along the mean alone.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \rho_t &= \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t},
            \qquad \rho_\infty = \frac{2}{1 - \beta_2} - 1 \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \begin{cases}
            \dfrac{r_t m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} & \text{if } \rho_t > \rho_{\min} \\
            m_t & \text{else}
        \end{cases}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
    threshold : float
        :math:`\rho_{\min}`, above which the variance is used, at least 4: with 5 from the sixth step on for the usual
        `decay2`, with 4 from the fifth.
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
    Algorithm 2 of [1]_ has a threshold of 4 and no :math:`\epsilon`; the code of its authors has 5 and one, and so have
    PyTorch and optax. PyTorch adds :math:`\epsilon` before the bias correction of the variance, optax after it, as
    here. With :math:`\beta_2 \le 0.6` the variance is never used.

    References
    ----------
    .. [1] Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020, arXiv:1908.03265,
       Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt, W = RAdam(lr=0.1), np.array([1.0, 2.0])
    >>> for _ in range(6):
    ...     W = opt.update(W, np.array([0.5, -0.25]), "W")
    >>> W.round(6)
    array([0.747418, 2.127582])
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)
    threshold: float = setting(default=5.0, range=Range(low=4))

    slots = RAdamState
    moments = ("var",)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The rates of the two kinds of step, one of which is 0, and the correction of the variance."""
        # 1 - decay2**t, and with it rho, would lose its digits to a decay2 that is nearly 1
        correction = -math.expm1(h.t * math.log1p(h.decay2 - 1)) if h.decay2 else 1.0
        longest = 2 / (1 - h.decay2) - 1
        rho = longest - 2 * h.t * (1 - correction) / correction
        if rho <= h.threshold:
            return {"plain": h.lr, "adaptive": 0.0, "correction": correction}
        part = (rho - 4) / (longest - 4) * ((rho - 2) / (longest - 2)) * (longest / rho)
        return {"plain": 0.0, "adaptive": h.lr * math.sqrt(part), "correction": correction}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: RAdamState, h: Scalars) -> tuple[Array, RAdamState]:
        """Algorithm 2 of Liu et al., with Adam's eps."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        plain = h.plain / (1 - h.decay1**h.t)
        adaptive = h.adaptive / (1 - h.decay1**h.t)
        scale = 1 / h.correction
        return param - (plain * mean + adaptive * mean / (xp.sqrt(scale * var) + h.eps)), RAdamState(mean, var)
