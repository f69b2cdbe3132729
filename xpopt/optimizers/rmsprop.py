"""RMSProp."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from .._settings.ranges import DECAY, EPS, FRACTION, Choice
from .._settings.setting import setting
from .base import OptimizerBase


class RMSPropState(NamedTuple):
    """What RMSProp remembers of each parameter."""

    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class CenteredState(NamedTuple):
    """The same with `centered`."""

    var: Array
    mean: Array  # like param; running mean of the gradients, starts at 0


class MomentumState(NamedTuple):
    """The same with a momentum."""

    var: Array
    velocity: Array  # like param, in its units; the last update, learning rate included; starts at 0


class CenteredMomentumState(NamedTuple):
    """The same with both."""

    var: Array
    mean: Array
    velocity: Array


class RMSProp(OptimizerBase):
    r"""Scale each step by the running root mean square of the gradient.

    .. math::

        c_t &= \rho c_{t-1} + (1 - \rho) g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta_t \frac{g_t}{\sqrt{c_t} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter per step. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay : float
        Decay :math:`\rho` of the running mean, in [0, 1): about ``1 / (1 - decay)`` steps of memory.
    eps : float
        :math:`\epsilon`, added outside the root, in units of the gradient. Greater than 0, and must not round to 0 in
        the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    centered : bool
        Whether to divide by the root of the variance, :math:`c_t - m_t^2` with :math:`m_t = \rho m_{t-1} + (1 - \rho)
        g_t`, in place of :math:`c_t`.
    momentum : float
        The fraction :math:`\mu` of the last update that is added to this one, in [0, 1].
    eps_place : {"outside", "inside"}
        Whether :math:`\epsilon` is added outside the root, or inside, :math:`\sqrt{c_t + \epsilon}`, in squared units
        of the gradient.
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
    The learning rate is inside the velocity, as in [2]_ and in Keras; PyTorch has it outside, which is the same while
    it is constant. The state with `centered` or with a momentum differs from the state without: they cannot be changed
    once there is state.

    References
    ----------
    .. [1] Tieleman and Hinton, "Lecture 6.5: rmsprop", COURSERA: Neural Networks for Machine Learning, 2012, slide 29.
    .. [2] Graves, "Generating Sequences With Recurrent Neural Networks", 2013, arXiv:1308.0850, eqs. 38 to 41, for
       `centered`, `momentum` and ``eps_place="inside"``.

    Examples
    --------
    >>> import numpy as np
    >>> opt = RMSProp(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.683772, 2.316228])
    >>> opt = RMSProp(lr=0.1, decay=0.75, centered=True, eps_place="inside")
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.76906, 2.23094])
    """

    lr: float = setting(default=0.001)
    decay: float = setting(default=0.9, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)

    centered: bool = setting(default=False, neutral=False, kw_only=True)
    momentum: float = setting(default=0.0, range=FRACTION, neutral=0.0, kw_only=True)
    eps_place: Literal["outside", "inside"] = setting(
        default="outside", range=Choice(("outside", "inside")), neutral="outside", kw_only=True
    )

    slots = RMSPropState
    moments = ("var",)
    entry = "array"

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: RMSPropState, h: Scalars) -> tuple[Array, RMSPropState]:
        """The lecture's equation."""
        var = h.decay * s.var + (1 - h.decay) * grad * grad
        return param - h.lr * grad / (xp.sqrt(var) + h.eps), RMSPropState(var)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule that `centered`, `momentum` and `eps_place` ask for."""
        kind = settings["centered"], bool(settings["momentum"]), settings["eps_place"] == "inside"
        return _RULES[kind] if any(kind) else super().choose_rule(settings)


Root = Callable[[Namespace, Array, Scalars], Array]
Step = Callable[[Namespace, Array, Any, Scalars], tuple[Array, tuple[Array, ...]]]


def _root(xp: Namespace, square: Array, h: Scalars) -> Array:
    root: Array = xp.sqrt(square) + h.eps
    return root


def _root_inside(xp: Namespace, square: Array, h: Scalars) -> Array:
    root: Array = xp.sqrt(square + h.eps)
    return root


def _step(root: Root) -> Step:
    def step(xp: Namespace, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        var = h.decay * s.var + (1 - h.decay) * grad * grad
        return h.lr * grad / root(xp, var, h), (var,)

    return step


def _centered_step(root: Root) -> Step:
    def step(xp: Namespace, grad: Array, s: Any, h: Scalars) -> tuple[Array, tuple[Array, ...]]:
        var = h.decay * s.var + (1 - h.decay) * grad * grad
        mean = h.decay * s.mean + (1 - h.decay) * grad
        spread = xp.maximum(var - mean * mean, 0.0)  # never negative, but for its rounding
        return h.lr * grad / root(xp, spread, h), (var, mean)

    return step


def _plain(step: Step, state: Any) -> Callable[..., tuple[Array, Any]]:
    def rule(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        update, slots = step(xp, grad, s, h)
        return param - update, state(*slots)

    return rule


def _with_momentum(step: Step, state: Any) -> Callable[..., tuple[Array, Any]]:
    def rule(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        update, slots = step(xp, grad, s, h)
        velocity = h.momentum * s.velocity + update
        return param - velocity, state(*slots, velocity)

    return rule


def _made(centered: bool, momentum: bool, inside: bool) -> Rule:
    """Return the rule of these pieces."""
    states: dict[tuple[bool, bool], type[Any]] = {
        (False, False): RMSPropState,
        (True, False): CenteredState,
        (False, True): MomentumState,
        (True, True): CenteredMomentumState,
    }
    state = states[centered, momentum]
    step = (_centered_step if centered else _step)(_root_inside if inside else _root)
    function = (_with_momentum if momentum else _plain)(step, state)
    function.__qualname__ = RMSProp.rule.__qualname__
    return Rule(function, state, entry=RMSProp.entry)


_RULES = {kind: _made(*kind) for kind in itertools.product((False, True), repeat=3)}
