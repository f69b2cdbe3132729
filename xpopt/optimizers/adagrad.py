"""AdaGrad."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from .._graph.slots import slot
from .._settings.ranges import EPS, NON_NEGATIVE
from .._settings.setting import setting
from .base import OptimizerBase


class AdaGradState(NamedTuple):
    """What AdaGrad remembers of each parameter."""

    total: Array  # like param; sum of the squared gradients, starts at 0, never negative


class StartedState(NamedTuple):
    """The same where the sum starts above 0."""

    total: Array = slot(start="initial")


class AdaGrad(OptimizerBase):
    r"""Scale each step by the root of the sum of all squared gradients so far.

    .. math::

        c_t &= c_{t-1} + g_t^2 \\
        \theta_t &= \theta_{t-1} - \eta_t \frac{g_t}{\sqrt{c_t} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\eta`, in units of the parameter: the length of the first step. Finite, at least 0. A
        schedule that states its own rate wins over it.
    eps : float
        :math:`\epsilon`, added outside the root, in units of the gradient. Greater than 0, and must not round to 0 in
        the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    initial : float
        The start of the sum, :math:`c_0`, in squared units of the gradient. At least 0.
    lr_decay : float
        The decay of the rate: :math:`\eta_t` is divided by ``1 + (t - 1) * lr_decay``, with the count
        :math:`t` of the parameter's updates. At least 0.
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
    `initial` and `lr_decay` are those of PyTorch, which calls the first ``initial_accumulator_value``. `lr_decay`
    cannot be changed from or to 0 once there is state, since only with `lr_decay` does the state have a count.

    References
    ----------
    .. [1] Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic Optimization", JMLR
       12, 2011, the diagonal matrices of Algorithm 1, with :math:`\epsilon` for :math:`\delta`.

    Examples
    --------
    >>> import numpy as np
    >>> opt = AdaGrad(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.9, 2.1])
    """

    lr: float = setting(default=0.01)
    eps: float = setting(default=1e-7, range=EPS)

    initial: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)
    lr_decay: float = setting(default=0.0, range=NON_NEGATIVE, neutral=0.0, kw_only=True)

    slots = AdaGradState
    moments = ("total",)
    entry = "array"

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdaGradState, h: Scalars) -> tuple[Array, AdaGradState]:
        """The diagonal form of Duchi, Hazan and Singer."""
        total = s.total + grad * grad
        return param - h.lr * grad / (xp.sqrt(total) + h.eps), AdaGradState(total)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule with the start and the rate that `initial` and `lr_decay` ask for."""
        kind = bool(settings["initial"]), bool(settings["lr_decay"])
        return _RULES[kind] if any(kind) else super().choose_rule(settings)


def _decayed(h: Scalars) -> dict[str, float]:
    """The rate of this step."""
    return {"lr": h.lr / (1 + (h.t - 1) * h.lr_decay)}


_RULES = {
    (True, False): Rule(AdaGrad.rule, StartedState, entry="array"),
    (False, True): Rule(AdaGrad.rule, AdaGradState, _decayed),  # whose entry says the count
    (True, True): Rule(AdaGrad.rule, StartedState, _decayed),
}
