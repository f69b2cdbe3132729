"""Lookahead."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._graph.slots import slot
from .._settings.ranges import Range
from .._settings.setting import setting
from .base import Transform


class LookaheadState(NamedTuple):
    """What lookahead remembers of each parameter."""

    slow: Array = slot(start="param")  # like param; the slow weights


class Lookahead(Transform):
    r"""Every :math:`k` steps, move slow weights a fraction of the way to the parameter, and set the parameter to them.

    .. math::

        \phi_t = \phi_{t-1} + \alpha (\theta_t - \phi_{t-1}), \quad \theta_t \leftarrow \phi_t
        \qquad \text{where } k \text{ divides } t

    At other steps the slow weights :math:`\phi` do not change. The slots of the rule are not reset.

    Parameters
    ----------
    every : int
        The number of steps :math:`k`, by the count of each parameter. At least 1.
    pull : float
        The fraction :math:`\alpha` of the way that the slow weights move. In (0, 1].

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019,
       arXiv:1907.08610, Algorithm 1, with the state of the inner optimizer maintained.
    """

    every: int = setting(default=6, range=Range(low=1, kind="int"))
    pull: float = setting(default=0.5, range=Range(low=0, high=1, open_low=True))

    keyword = "lookahead"
    slots = LookaheadState

    @staticmethod
    def after(xp: Namespace, new: Array, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        """Algorithm 1, lines 8 and 9, at each k-th step."""
        slow = s.slow + h.part * (new - s.slow)
        return xp.where(new > h.above, slow, new), LookaheadState(slow)

    @staticmethod
    def scalars(h: Scalars) -> dict[str, float]:
        """The part of the way of this step; and a number that all elements are above at each k-th step alone."""
        ends = h.t % h.every == 0
        return {"part": h.pull if ends else 0.0, "above": -math.inf if ends else math.inf}
