"""Decoupled weight decay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.rule import NoSlots
from .._graph.slots import slot
from .._settings.ranges import FLAG, NON_NEGATIVE
from .._settings.setting import setting
from .._settings.text import short
from .base import Transform


class DecayState(NamedTuple):
    """What a decay towards the start remembers of each parameter."""

    origin: Array = slot(start="param")  # like param; what it was at the first step with this decay


class _Goal:
    """What a parameter may decay towards."""

    def check(self, owner: str, name: str, value: object) -> Any:
        if isinstance(value, str) and value == "start":
            return "start"
        if isinstance(value, int | float) and not isinstance(value, bool) and value == 0:
            return 0
        raise ValueError(f"{owner}: {name}={short(value)} is unknown; wanted 0, or 'start'")


class WeightDecay(Transform):
    r"""Pull each parameter towards zero, in addition to the step of the rule.

    .. math:: \theta_t = r(\theta_{t-1}) - \alpha_t \lambda \theta_{t-1}

    where :math:`r` is the step of the rule. The decay is not part of the gradient, so that a rule which divides by the
    magnitude of its gradients decays all elements by the same factor.

    Parameters
    ----------
    weight_decay : float
        The decay :math:`\lambda`. Finite, at least 0.
    times_lr : bool
        Whether it is multiplied by the learning rate :math:`\alpha_t` of the step. If not, each step subtracts the
        fraction :math:`\lambda`.
    towards : {0, "start"}
        The point towards which parameters decay: zero; or the parameter at the first step with this decay, which is
        kept in the slot ``origin``.
    cautious : bool
        Whether an element decays only where the step of the rule has the same direction.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, Algorithm 2,
       with its schedule multiplier in the learning rate.
    .. [2] Chen et al., "Cautious Weight Decay", 2025, arXiv:2510.12402, Algorithm 1, for `cautious`.
    """

    weight_decay: float = setting(default=0.01, range=NON_NEGATIVE)
    times_lr: bool = setting(default=True, range=FLAG, kw_only=True)
    towards: Any = setting(default=0, range=_Goal(), kw_only=True)
    cautious: bool = setting(default=False, range=FLAG, kw_only=True)

    keyword = "weight_decay"
    slots = DecayState

    def state(self) -> type[Any]:
        """Return the class of its slots, of which there are none where it pulls towards zero."""
        return DecayState if self.towards == "start" else NoSlots

    @property
    def after(self) -> Any:
        """The decay of Algorithm 2, line 12."""
        return _decaying(self.times_lr, self.towards == "start", self.cautious)


@functools.cache
def _decaying(times_lr: bool, to_start: bool, cautious: bool) -> Callable[..., tuple[Array, Any]]:
    def after(xp: Namespace, new: Array, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        away: Any = param - s.origin if to_start else param
        decay = (h.lr * h.weight_decay if times_lr else h.weight_decay) * away
        if cautious:
            decay = xp.where((param - new) * away >= 0.0, decay, 0.0)
        return new - decay, s

    return after
