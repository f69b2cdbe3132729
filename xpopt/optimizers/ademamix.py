"""AdEMAMix."""

from __future__ import annotations

import math
from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class AdEMAMixState(NamedTuple):
    """What AdEMAMix remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    long_mean: Array  # like param; running mean of the gradients with a longer memory, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class AdEMAMix(OptimizerBase):
    r"""Step as Adam does, along a mixture of a fast and a slow running mean of the gradient.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        n_t &= \beta_3(t) \, n_{t-1} + (1 - \beta_3(t)) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta \, \frac{m_t / (1 - \beta_1^t) + \alpha(t) \, n_t}
            {\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} \\
        \alpha(t) &= \alpha \min(t / T_\alpha, 1), \qquad
        \beta_3(t) = \min\left(\exp \frac{\ln \beta_1 \ln \beta_3}
            {(1 - t / T_\beta) \ln \beta_3 + (t / T_\beta) \ln \beta_1}, \, \beta_3\right)

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2, decay3 : float
        Decay of the fast mean, of that of squares and of the slow mean, :math:`\beta_1`, :math:`\beta_2` and
        :math:`\beta_3`, in [0, 1): about ``1 / (1 - decay)`` steps of memory.
    alpha : float
        The weight :math:`\alpha` of the slow mean, at least 0. With 0 this is Adam.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
    alpha_steps, decay3_steps : float
        Over how many steps, :math:`T_\alpha` and :math:`T_\beta`, the weight of the slow mean grows from 0, and its
        decay from `decay1`, in such a way that its half-life grows by the same amount at each step. At least 0; with 0
        both are what they are set to from the first step on.
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
    In [1]_ both grow over the whole training, whose length is not known here; so they do not, by default, as in the
    authors' code. optax takes schedules of both in the place of the two lengths.

    References
    ----------
    .. [1] Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025,
       arXiv:2409.03137, Algorithm 1, and section 3 for the two schedules.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AdEMAMix(lr=0.1, alpha_steps=1000, decay3_steps=1000)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.899975, 2.100025])
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    decay3: float = setting(default=0.9999, range=DECAY)
    alpha: float = setting(default=5.0, range=NON_NEGATIVE)
    eps: float = setting(default=1e-8, range=EPS)
    alpha_steps: float = setting(default=0.0, range=NON_NEGATIVE)
    decay3_steps: float = setting(default=0.0, range=NON_NEGATIVE)

    slots = AdEMAMixState
    moments = ("var",)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The weight and the decay of the slow mean at this step."""
        mix = h.alpha * min(h.t / h.alpha_steps, 1.0) if h.alpha_steps else h.alpha
        if h.t >= h.decay3_steps or h.decay3 == 0:
            return {"mix": mix, "keep": h.decay3}
        way = h.t / h.decay3_steps
        first = (1 - way) / math.log(h.decay1) if h.decay1 else 0.0
        return {"mix": mix, "keep": min(math.exp(1 / (first + way / math.log(h.decay3))), h.decay3)}

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdEMAMixState, h: Scalars) -> tuple[Array, AdEMAMixState]:
        """Algorithm 1 of Pagliardini, Ablin and Grangier."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        long_mean = h.keep * s.long_mean + (1 - h.keep) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        of_mean = h.lr / (1 - h.decay1**h.t)
        of_long = h.lr * h.mix
        scale = 1 / (1 - h.decay2**h.t)
        step = (of_mean * mean + of_long * long_mean) / (xp.sqrt(scale * var) + h.eps)
        return param - step, AdEMAMixState(mean, long_mean, var)
