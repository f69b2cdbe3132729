"""Adam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import Rule
from .._settings.ranges import DECAY, EPS, Choice
from .._settings.setting import setting
from .base import OptimizerBase


class AdamState(NamedTuple):
    """What Adam remembers of each parameter."""

    mean: Array  # like param; running mean of the gradients, starts at 0
    var: Array  # like param; running mean of the squared gradients, starts at 0, never negative


class Adam(OptimizerBase):
    r"""Step along the running mean of the gradient, scaled by its running root mean square.

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
        \theta_t &= \theta_{t-1} - \frac{\alpha}{1 - \beta_1^t} \,
            \frac{m_t}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate :math:`\alpha`, in units of the parameter per step. Finite, at least 0. A schedule that states
        its own rate wins over it.
    decay1, decay2 : float
        Decay of the two means, :math:`\beta_1` and :math:`\beta_2`, in [0, 1): about ``1 / (1 - decay)`` steps of
        memory.
    eps : float
        :math:`\epsilon`, added outside the root and after the bias correction, in units of the gradient. Greater than
        0, and must not round to 0 in the compute dtype.
    clip_norm : float or None
        The largest L2 norm of each parameter's gradient. Greater than 0; None leaves gradients alone.
    lr_scheduler : None, str, dict or SchedulerBase
        The schedule of the learning rate; None keeps it constant.
    eps_place : {"corrected", "uncorrected"}
        Whether :math:`\epsilon` is added to the root after the bias correction, or before, as in Keras:
        :math:`\sqrt{1 - \beta_2^t} \, m_t / (\sqrt{v_t} + \epsilon)`.
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
    This is Algorithm 1 of [1]_, not the rearranged form of its section 2, which changes what `eps` means, and which
    ``eps_place="uncorrected"`` selects. The bias corrections are numbers of the step, computed in float64 on the host,
    so that an element takes one division.

    References
    ----------
    .. [1] Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980.

    Examples
    --------
    >>> import numpy as np
    >>> opt = Adam(lr=0.1)
    >>> opt.update(np.array([1.0, 2.0]), np.array([0.5, -0.5]), "W").round(6)
    array([0.9, 2.1])
    """

    lr: float = setting(default=0.001)
    decay1: float = setting(default=0.9, range=DECAY)
    decay2: float = setting(default=0.999, range=DECAY)
    eps: float = setting(default=1e-7, range=EPS)
    eps_place: Literal["corrected", "uncorrected"] = setting(
        default="corrected", range=Choice(("corrected", "uncorrected")), neutral="corrected", kw_only=True
    )

    slots = AdamState
    moments = ("var",)

    @staticmethod
    def rule(xp: Namespace, param: Array, grad: Array, s: AdamState, h: Scalars) -> tuple[Array, AdamState]:
        """Algorithm 1 of Kingma and Ba."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        step = h.lr / (1 - h.decay1**h.t)
        scale = 1 / (1 - h.decay2**h.t)
        return param - step * mean / (xp.sqrt(scale * var) + h.eps), AdamState(mean, var)

    @staticmethod
    def uncorrected_rule(xp: Namespace, param: Array, grad: Array, s: AdamState, h: Scalars) -> tuple[Array, AdamState]:
        """The rearranged form of section 2 of Kingma and Ba."""
        mean = h.decay1 * s.mean + (1 - h.decay1) * grad
        var = h.decay2 * s.var + (1 - h.decay2) * grad * grad
        step = h.lr * (1 - h.decay2**h.t) ** 0.5 / (1 - h.decay1**h.t)
        return param - step * mean / (xp.sqrt(var) + h.eps), AdamState(mean, var)

    @staticmethod
    def element_rate(xp: Namespace, s: AdamState, h: Scalars) -> Array:
        """The rate over the corrected root."""
        scale = 1 / (1 - h.decay2**h.t)
        return h.lr / (xp.sqrt(scale * s.var) + h.eps)

    @staticmethod
    def uncorrected_element_rate(xp: Namespace, s: AdamState, h: Scalars) -> Array:
        """The same in the rearranged form."""
        step = h.lr * (1 - h.decay2**h.t) ** 0.5
        return step / (xp.sqrt(s.var) + h.eps)

    @classmethod
    def choose_rule(cls, settings: Mapping[str, Any]) -> Rule | tuple[Rule, ...]:
        """Return the rule with eps in its place."""
        return super().choose_rule(settings) if settings["eps_place"] == "corrected" else _UNCORRECTED


_UNCORRECTED = Rule(Adam.uncorrected_rule, AdamState, element_rate=Adam.uncorrected_element_rate)
