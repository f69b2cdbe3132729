"""Rprop."""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import slot
from .._settings.ranges import FRACTION, POSITIVE, Range
from .._settings.setting import setting
from .base import OptimizerBase


class RpropState(NamedTuple):
    """What Rprop remembers of each parameter."""

    direction: Array  # like param; the sign of the last gradient, or 0 where no step was made; starts at 0
    size: Array = slot(start="lr")  # like param, in its units; the length of the last step, starts at `lr`


class Rprop(OptimizerBase):
    r"""Step by a length for each element, which grows while the gradient keeps its sign, and shrinks otherwise.

    .. math::

        \Delta_t &= \begin{cases}
            \min(\eta^+ \Delta_{t-1}, \Delta_{\max}) & \text{if } g_t s_{t-1} > 0 \\
            \max(\eta^- \Delta_{t-1}, \Delta_{\min}) & \text{if } g_t s_{t-1} < 0 \\
            \Delta_{t-1} & \text{else}
        \end{cases} \\
        s_t &= \begin{cases}
            0 & \text{if } g_t s_{t-1} < 0 \\
            \mathrm{sign}(g_t) & \text{else}
        \end{cases} \\
        \theta_t &= \theta_{t-1} - s_t \Delta_t

    Parameters
    ----------
    lr : float
        The length :math:`\Delta_0` that steps begin with, in units of the parameter. Finite, at least 0. It is read at
        a parameter's first update, and a schedule that states its own rate wins over it; later rates affect only weight
        decay.
    down, up : float
        The factors by which a length is multiplied where the gradient changes sign, :math:`\eta^-` in [0, 1], and where
        it keeps it, :math:`\eta^+`, at least 1.
    least, most : float
        The smallest and the largest length, :math:`\Delta_{\min}` and :math:`\Delta_{\max}`, in units of the parameter.
        Greater than 0.
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
    Where the gradient changes sign, no step is made and the sign is forgotten: this is iRprop- of [2]_, as in PyTorch,
    whereas [1]_ undoes the last step. It is meant for gradients of all the data, and not of batches. PyTorch multiplies
    two gradients to compare their signs, which underflows to 0 for very small ones; here only signs are kept. For a
    complex parameter, each part has its own length and sign.

    References
    ----------
    .. [1] Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation Learning: The RPROP Algorithm",
       ICNN 1993.
    .. [2] Igel and Hüsken, "Improving the Rprop Learning Algorithm", NC 2000, the algorithm iRprop-.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Rprop(lr=0.1)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W")
    >>> W, opt.update(W, np.array([0.25, 0.5]), "W").round(6)
    (array([0.9, 2.1]), array([0.78, 2.1 ]))
    """

    lr: float = setting(default=0.01)
    down: float = setting(default=0.5, range=FRACTION)
    up: float = setting(default=1.2, range=Range(low=1))
    least: float = setting(default=1e-6, range=POSITIVE)
    most: float = setting(default=50.0, range=POSITIVE)

    slots = RpropState

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: RpropState, h: Scalars) -> tuple[Array, RpropState]:
        """The algorithm iRprop- of Igel and Hüsken."""
        turn = xp.sign(grad) * s.direction
        grown = xp.minimum(h.up * s.size, h.most)
        shrunk = xp.maximum(h.down * s.size, h.least)
        size = xp.where(turn > 0, grown, xp.where(turn < 0, shrunk, s.size))
        direction = xp.where(turn < 0, 0.0, xp.sign(grad))
        return param - direction * size, RpropState(direction, size)
