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


class TraceState(NamedTuple):
    """The same where the learning rate is outside."""

    trace: Array  # like param, in units of grad; the sum of the gradients, older ones damped; starts at 0


class SGD(OptimizerBase):
    r"""Step along the negative gradient, plus a fraction of the last step.

    .. math::

        u_t &= \mu u_{t-1} + \eta_t g_t \\
        \theta_t &= \theta_{t-1} - u_t

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per unit of the gradient. Finite, at least 0. A schedule
        that states its own rate wins over it.
    momentum : float
        The fraction :math:`\mu` of the last update that is added to this one, in [0, 1]. With 0 there is no state; a
        momentum that is set later starts at a velocity of 0.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    nesterov : bool
        Whether to step by :math:`\mu u_t + \eta_t g_t` in place of :math:`u_t`, which looks one step ahead. Not
        together with `dampening`.
    dampening : float
        The fraction of a gradient that is not added to the velocity, in [0, 1]; the first gradient is added whole, as
        in PyTorch.
    lr_inside : bool
        Whether the learning rate is inside the velocity, as above. If not, the velocity is of gradients alone, as in
        PyTorch: :math:`v_t = \mu v_{t-1} + g_t` and :math:`\theta_t = \theta_{t-1} - \eta_t v_t`.
    **options
        Options common to all optimizers: see `OptimizerBase`.

    Raises
    ------
    TypeError
        An unknown keyword, or a value that is not a number.
    ValueError
        A value out of its range, or `nesterov` together with `dampening`.

    Notes
    -----
    With the learning rate inside the velocity, a change of the rate affects new gradients only; outside, it affects all
    earlier gradients too. While the rate is constant both are the same. Their states differ: `lr_inside` cannot be
    changed once there is state, nor, with the rate inside, can `dampening` from or to 0.

    References
    ----------
    .. [1] Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics
       and Mathematical Physics 4(5), 1964, eq. 9.
    .. [2] Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning",
       ICML 2013, eqs. 3 and 4, for `nesterov`, of which the parameter here is the point where the gradient is taken.

    Examples
    --------
    >>> import numpy as np
    >>> opt = SGD(lr=0.1, momentum=0.9)
    >>> W = opt.update(np.array([1.0, 2.0]), np.array([1.0, -1.0]), "W")
    >>> opt.update(W, np.array([1.0, -1.0]), "W").round(6)
    array([0.71, 2.29])
    >>> opt = SGD(lr=0.1, momentum=0.9, nesterov=True)
    >>> opt.update(np.array([1.0, 2.0]), np.array([1.0, -1.0]), "W").round(6)
    array([0.81, 2.19])
    """

    lr: float = setting(default=0.01)
    momentum: float = setting(default=0.0, range=FRACTION, neutral=0.0)
    nesterov: bool = setting(default=False, neutral=False, kw_only=True)
    dampening: float = setting(default=0.0, range=FRACTION, neutral=0.0, kw_only=True)
    lr_inside: bool = setting(default=True, neutral=True, kw_only=True)

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

    @staticmethod
    def nesterov_rule(xp: Namespace, param: Array, grad: Array, s: SGDState, h: Scalars) -> tuple[Array, SGDState]:
        """The step of Sutskever et al. from one look-ahead to the next."""
        velocity = h.momentum * s.velocity + h.lr * grad
        return param - (h.momentum * velocity + h.lr * grad), SGDState(velocity)

    @staticmethod
    def dampened_rule(xp: Namespace, param: Array, grad: Array, s: SGDState, h: Scalars) -> tuple[Array, SGDState]:
        """The heavy-ball step with a part of the gradient."""
        velocity = h.momentum * s.velocity + h.lr * h.part * grad
        return param - velocity, SGDState(velocity)

    @staticmethod
    def trace_rule(xp: Namespace, param: Array, grad: Array, s: TraceState, h: Scalars) -> tuple[Array, TraceState]:
        """The heavy-ball step with the rate outside."""
        trace = h.momentum * s.trace + h.part * grad
        return param - h.lr * trace, TraceState(trace)

    @staticmethod
    def trace_nesterov_rule(
        xp: Namespace, param: Array, grad: Array, s: TraceState, h: Scalars
    ) -> tuple[Array, TraceState]:
        """The step of Sutskever et al. with the rate outside."""
        trace = h.momentum * s.trace + grad
        return param - h.lr * (h.momentum * trace + grad), TraceState(trace)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule that momentum, `nesterov`, `dampening` and `lr_inside` ask for."""
        family = "outside" if not settings["lr_inside"] else "dampened" if settings["dampening"] else "inside"
        kind = "plain" if not settings["momentum"] else "nesterov" if settings["nesterov"] else "heavy"
        return _RULES.get((family, kind)) or super().choose_rule(settings)

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        super()._check_together(values)
        if values["nesterov"] and values["dampening"]:
            raise ValueError(
                f"{cls.__name__}: nesterov=True and dampening={values['dampening']!r} cannot be combined: Nesterov's "
                f"momentum takes gradients whole; choose one of them"
            )


def _part(h: Scalars) -> dict[str, float]:
    """The part of this step's gradient that goes into the velocity."""
    return {"part": 1.0 if h.t == 1 else 1 - h.dampening}


# One rule for each form of state that there is without momentum too, so that momentum may come and go.
_RULES = {
    ("inside", "plain"): Rule(SGD.plain_rule, follows=SGDState, entry="array"),
    ("inside", "nesterov"): Rule(SGD.nesterov_rule, SGDState, follows=NoSlots, entry="array"),
    ("dampened", "plain"): Rule(SGD.plain_rule, follows=SGDState),
    ("dampened", "heavy"): Rule(SGD.dampened_rule, SGDState, _part, follows=NoSlots),
    ("outside", "plain"): Rule(SGD.plain_rule, follows=TraceState),
    ("outside", "heavy"): Rule(SGD.trace_rule, TraceState, _part, follows=NoSlots),
    ("outside", "nesterov"): Rule(SGD.trace_nesterov_rule, TraceState, follows=NoSlots),
}
