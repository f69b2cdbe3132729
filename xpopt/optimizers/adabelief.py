"""AdaBelief."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY, EPS
from .._settings.setting import setting
from .base import OptimizerBase


class AdaBeliefState(NamedTuple):
    """What AdaBelief remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared distance from `mean`, starts at 0, never negative


class AdaBelief(OptimizerBase):
    r"""Step as Adam does, scaled by how far the gradient is from its running mean.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        s_t &= \beta_2 s_{t-1} + (1 - \beta_2) (g_t - m_t)^2 + \epsilon \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \,
            \frac{m_t}{\sqrt{s_t / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states its
        own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added to the running mean under the root at each step, and outside the root. Greater than 0,
        and must not round to 0 in the compute dtype.
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
    As in [1]_, one :math:`\epsilon` is added in both places: a step is at most :math:`\alpha / \sqrt{\epsilon}` times
    as long as its mean. The default is that of the authors' code; larger ones bring the method near to SGD with
    momentum. In optax the two are settings, ``eps`` outside and ``eps_root`` inside.

    References
    ----------
    .. [1] Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients", NeurIPS 2020,
       arXiv:2010.07468, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AdaBelief(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.888889, 2.111111])
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-16, range=EPS)

    slots = AdaBeliefState
    moments = ("var",)

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdaBeliefState, h: Scalars) -> tuple[Array, AdaBeliefState]:
        """Algorithm 2 of Zhuang et al."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        off = grad - mean
        var = h.decay2 * s.var + (1 - h.decay2) * off * off + h.eps
        step = h.lr / (1 - h.decay1**h.t)
        scale = 1 / (1 - h.decay2**h.t)
        return param - step * mean / (xp.sqrt(scale * var) + h.eps), AdaBeliefState(mean, var)
