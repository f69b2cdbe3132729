"""Prodigy."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import one, slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE, POSITIVE
from .._settings.setting import setting
from .base import OptimizerBase


class ProdigyState(NamedTuple):
    """What Prodigy remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients times the estimate, starts at 0
    var: Array  # like param; running mean of their squares, starts at 0, never negative
    sums: Array  # like param; weighted sum of the gradients, starts at 0
    start: Array = slot(start="param")  # like param; where it began
    estimate: Array = slot(start="initial", shape=one)  # of shape (); of the distance
    numerator: Array = slot(shape=one)  # of shape (); what the estimate is made of, over `sums`


class Prodigy(OptimizerBase):
    r"""Adam at a rate that is an estimate of the distance to the solution.

    .. math::

        \gamma_t &= d_t \, \eta \, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t}, \qquad \beta_3 = \sqrt{\beta_2} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) d_t g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 g_t^2 \\
        s_t &= \beta_3 s_{t-1} + \frac{d_t}{d_0} \gamma_t g_t \\
        r_t &= \beta_3 r_{t-1} + \frac{d_t}{d_0} \gamma_t \langle g_t, x_0 - x_{t-1} \rangle \\
        d_{t+1} &= \max\left(d_t, \frac{r_t}{\lVert s_t \rVert_1}\right) \\
        x_t &= x_{t-1} - \gamma_t \left(\frac{m_t}{\sqrt{v_t} + d_{t+1} \epsilon} + \lambda x_{t-1}\right)

    where the inner product and the norm are those of the whole model, so `update` raises; use `update_all`.

    Parameters
    ----------
    lr : float
        A factor :math:`\eta` on the rate that is found. Finite, at least 0. A schedule that states its own rate wins
        over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, times the estimate in the units of the root. Greater than 0, and must not round to 0 in the
        compute dtype.
    initial : float
        The first estimate :math:`d_0`, below the distance. Greater than 0.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    weight_decay : float
        The decay :math:`\lambda`, at least 0, times the rate that is found. It is this setting, and not the option that
        other optimizers have.
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
    Every parameter keeps its own copy of the estimate, which grows in steps in which it has a gradient. So all
    parameters should have a gradient from the first step on, of zeros if necessary: a parameter that is added later
    starts at :math:`d_0`, and its sums are then too small compared with those of the model for the estimate to grow.
    Use a new optimizer when layers are unfrozen.

    References
    ----------
    .. [1] Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024,
       arXiv:2306.06101, Algorithm 4, with the authors' bias correction.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Prodigy(initial=0.1)
    >>> opt.update_all([np.array([3.0, 4.0])], [np.array([0.5, -0.5])])[0].round(6)
    array([2.9, 4.1])
    """

    lr: float = setting(default=1.0)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)
    initial: float = setting(default=1e-6, range=POSITIVE)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = ProdigyState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: ProdigyState, h: Scalars) -> tuple[Array, ProdigyState]:
        """Algorithm 4 of Mishchenko and Defazio."""
        rate = s.estimate * (h.lr * (1 - h.decay2**h.t) ** 0.5 / (1 - h.decay1**h.t))
        scaled = s.estimate * grad
        mean = h.decay1 * s.mean + (1 - h.decay1) * scaled
        var = h.decay2 * s.var + (1 - h.decay2) * scaled * scaled
        weight = s.estimate / h.initial * rate
        sums = h.decay2**0.5 * s.sums + weight * grad
        numerator = h.decay2**0.5 * s.numerator + weight * h.model.sum(grad * (s.start - param))
        length = h.model.sum(xp.abs(sums))
        estimate = xp.where(length > 0, xp.maximum(s.estimate, numerator / length), s.estimate)
        step = mean / (xp.sqrt(var) + estimate * h.eps) + h.weight_decay * param
        return param - rate * step, ProdigyState(mean, var, sums, s.start, estimate, numerator)
