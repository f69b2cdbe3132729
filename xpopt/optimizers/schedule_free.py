"""Schedule-free SGD and AdamW."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import one, slot
from .._settings.ranges import DECAY, EPS, NON_NEGATIVE, Range
from .._settings.setting import setting
from .base import OptimizerBase

_PULL = Range(low=0, high=1, open_low=True)


class ScheduleFreeSGDState(NamedTuple):
    """What schedule-free SGD remembers of each parameter."""

    fast: Array = slot(start="param")  # like param, in its units; where SGD itself would be
    weights: Array = slot(shape=one)  # of shape (); the sum of the weights so far, in units of the largest; starts at 0
    top: Array = slot(shape=one)  # of shape (); the largest rate so far, starts at 0


class ScheduleFreeAdamWState(NamedTuple):
    """What schedule-free AdamW remembers of each parameter."""

    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative
    fast: Array = slot(start="param")
    weights: Array = slot(shape=one)
    top: Array = slot(shape=one)


def _share(xp: Namespace, s: Any, h: Scalars) -> tuple[Array, Array, Array]:
    """Return the part of this step's weight in the sum of all, that sum, and the largest rate."""
    top = xp.maximum(s.top, h.lr)
    before = s.top / xp.where(top > 0, top, 1.0)  # all in units of the largest weight, so that no square underflows
    weights = before * before * s.weights + 1
    return 1 / weights, weights, top


def _point(param: Array, step: Array, s: Any, h: Scalars, share: Array) -> Array:
    """Return where the next gradient is taken, after a step of the fast point."""
    point: Array = param - share * (param - s.fast) - (1 - h.momentum * (1 - share)) * step
    return point


def _averaged(param: Array, s: Any, h: Scalars) -> Array:
    """Return the average, of which the parameter is `momentum` and the fast point the rest."""
    average: Array = s.fast + (1 / h.momentum) * (param - s.fast)
    return average


class ScheduleFreeSGD(OptimizerBase):
    r"""Step as SGD does, and take gradients near the average of all steps, in place of a schedule.

    .. math::

        z_t &= z_{t-1} - \gamma_t (g_t + \lambda y_{t-1}) \\
        x_t &= (1 - c_t) \, x_{t-1} + c_t z_t, \qquad c_t = \frac{w_t}{\sum_{i=1}^t w_i}, \quad
            w_t = \max_{i \le t} \gamma_i^2 \\
        y_t &= (1 - \beta) \, z_t + \beta x_t

    where :math:`y` is the parameter, at which gradients are taken, and :math:`x` what has been learnt: what
    `averaged` returns.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\gamma`, in units of the parameter per unit of the gradient. Finite, at least 0. A schedule
        that states its own rate wins over it; of one, the warm-up is of use.
    momentum : float
        Where gradients are taken, :math:`\beta`, between the fast point and the average. Greater than 0, at most 1.
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
    The weights are those of the authors' code, in which a rate that falls again leaves them as they are; in [1]_ they
    are :math:`\gamma_t^2`, which is the same up to the largest rate. :math:`x` is not kept: it is
    :math:`z + (y - z) / \beta`.

    References
    ----------
    .. [1] Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled", NeurIPS 2024,
       arXiv:2405.15682, eqs. 3 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> opt = ScheduleFreeSGD(lr=0.1, momentum=0.5)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([1.0, -1.0]), "W")
    >>> W, opt.update(W, np.array([1.0, -1.0]), "W").round(6)
    (array([0.9, 2.1]), array([0.825, 2.175]))
    """

    lr: float = setting(default=1.0)
    momentum: float = setting(default=0.9, range=_PULL)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = ScheduleFreeSGDState

    @staticmethod
    def rule(
        xp: Namespace, param: Array, grad: Array, s: ScheduleFreeSGDState, h: Scalars
    ) -> tuple[Array, ScheduleFreeSGDState]:
        """Equations 3 to 5 of Defazio et al., with a decay."""
        share, weights, top = _share(xp, s, h)
        step = h.lr * (grad + h.weight_decay * param)
        return _point(param, step, s, h, share), ScheduleFreeSGDState(s.fast - step, weights, top)

    @staticmethod
    def evaluated(xp: Namespace, param: Array, s: ScheduleFreeSGDState, h: Scalars) -> Array:
        """The average :math:`x`."""
        return _averaged(param, s, h)


class ScheduleFreeAdamW(OptimizerBase):
    r"""Step as AdamW does, and take gradients near the average of all steps, in place of a schedule.

    .. math::

        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        z_t &= z_{t-1} - \gamma_t \left(\frac{g_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon} + \lambda y_{t-1}\right) \\
        x_t &= (1 - c_t) \, x_{t-1} + c_t z_t, \qquad c_t = \frac{w_t}{\sum_{i=1}^t w_i}, \quad
            w_t = \max_{i \le t} \gamma_i^2 \\
        y_t &= (1 - \beta) \, z_t + \beta x_t

    where :math:`y` is the parameter, at which gradients are taken, and :math:`x` what has been learnt: what
    `averaged` returns.

    Parameters
    ----------
    lr : float
        Learning rate :math:`\gamma`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it; of one, the warm-up is of use.
    momentum : float
        Where gradients are taken, :math:`\beta`, between the fast point and the average. Greater than 0, at most 1.
    decay2 : float
        Decay of the running mean of squares, :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay2)`` steps of memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
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
    The weights are those of the authors' code: see `ScheduleFreeSGD`. As there, the rate is not multiplied by
    :math:`\sqrt{1 - \beta_2^t}`, as it is in Algorithm 1 of [1]_: the mean of squares is corrected instead.

    References
    ----------
    .. [1] Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled", NeurIPS 2024,
       arXiv:2405.15682, Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> opt = ScheduleFreeAdamW(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.9, 2.1])
    """

    lr: float = setting(default=0.0025)
    momentum: float = setting(default=0.9, range=_PULL)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-8, range=EPS)
    weight_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = ScheduleFreeAdamWState
    moments = ("var",)

    @staticmethod
    def rule(
        xp: Namespace, param: Array, grad: Array, s: ScheduleFreeAdamWState, h: Scalars
    ) -> tuple[Array, ScheduleFreeAdamWState]:
        """Algorithm 1 of Defazio et al., with the mean of squares corrected."""
        share, weights, top = _share(xp, s, h)
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        scale = 1 / (1 - h.decay2**h.t)
        step = h.lr * (grad / (xp.sqrt(scale * var) + h.eps) + h.weight_decay * param)
        return _point(param, step, s, h, share), ScheduleFreeAdamWState(var, s.fast - step, weights, top)

    @staticmethod
    def evaluated(xp: Namespace, param: Array, s: ScheduleFreeAdamWState, h: Scalars) -> Array:
        """The average :math:`x`."""
        return _averaged(param, s, h)
