"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots, Rule
from .._settings.ranges import FRACTION
from .._settings.setting import setting
from .base import OptimizerBase


class SGDState(NamedTuple):
    """What SGD with momentum remembers of each parameter."""

    velocity: Array  # like param, in its units; the last update, learning rate included; starts at 0


class SGD(OptimizerBase):
    r"""Step against the gradient, going on in the direction of the last step.

    .. math::

        u_t &= \mu u_{t-1} + \eta_t g_t \\
        \theta_t &= \theta_{t-1} - u_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per unit of the gradient. Finite, at least 0. A schedule
        that states its own rate wins over it.
    momentum : float
        The fraction :math:`\mu` of the last update that is added to this one, in [0, 1]. With 0 nothing is remembered;
        a momentum set later starts from rest.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is no number.
    ValueError
        A value out of its range.

    Notes
    -----
    The learning rate is inside the velocity, so that a change of rate acts on new gradients alone; some libraries
    multiply by it outside.

    References
    ----------
    .. [1] Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
       and Mathematical Physics 4(5), 1964, eq. 9.

    Examples
    --------
    >>> import numpy as np
    >>> opt = SGD(lr=0.1, momentum=0.9)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([1.0, -1.0]), "W")
    >>> opt.update(W, np.array([1.0, -1.0]), "W").round(6)
    array([0.71, 2.29])
    """

    lr: float = setting(default=0.01)
    momentum: float = setting(default=0.0, range=FRACTION, neutral=0.0)

    slots = SGDState
    entry = "array"
    follows = NoSlots

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: SGDState, h: Scalars) -> tuple[Array, SGDState]:
        """The heavy-ball step."""
        velocity = h.momentum * s.velocity + h.lr * grad
        return param - velocity, SGDState(velocity)

    @staticmethod
    def plain_rule(xp: Namespace, param: Array, grad: Array, s: NoSlots, h: Scalars) -> tuple[Array, NoSlots]:
        """The same with a momentum of 0, and nothing to remember."""
        return param - h.lr * grad, s

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the plain rule where the momentum is 0."""
        return super().choose_rule(settings) if settings["momentum"] else _PLAIN


_PLAIN = Rule(SGD.plain_rule, follows=SGDState, entry="array")
