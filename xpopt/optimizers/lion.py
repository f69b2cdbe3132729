"""Lion."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import DECAY
from .._settings.setting import setting
from .base import OptimizerBase


class LionState(NamedTuple):
    """What Lion remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0


class Lion(OptimizerBase):
    r"""Step by the learning rate along the sign of a mean of the gradient.

    .. math::

        c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        \theta_t &= \theta_{t-1} - \eta \, \mathrm{sign}(c_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter: the length of each step. Finite, at least 0. A schedule
        that states its own rate wins over it.
    decay1, decay2 : float
        The weight :math:`\beta_1` of the mean in the direction of a step, and the decay :math:`\beta_2` of the mean, in
        [0, 1).
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
    An element steps by `lr`, however large its gradient is, so the rate is three to ten times smaller than Adam's, as
    [1]_ advises, and its weight decay larger by the same factor. Where :math:`c_t` is 0, an element does not move. The
    paper's :math:`\lambda` is `weight_decay`. For a complex parameter, the sign is that of each part.

    References
    ----------
    .. [1] Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, arXiv:2302.06675, Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Lion(lr=0.125)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.25]), "W")
    array([0.875, 2.125])
    """

    lr: float = setting(default=1e-4)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.99, range=DECAY)

    slots = LionState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: LionState, h: Scalars) -> tuple[Array, LionState]:
        """Algorithm 2 of Chen et al., without its decay."""
        direction = h.decay1 * s.mean + (1 - h.decay1) * grad
        mean = h.decay2 * s.mean + (1 - h.decay2) * grad
        return param - h.lr * xp.sign(direction), LionState(mean)
