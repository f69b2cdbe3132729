"""Gradient accumulation: a step with the mean of several gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import Range
from .._settings.setting import setting
from .base import Transform


class AccumulateState(NamedTuple):
    """What is added up of each parameter."""

    grad_sum: Array  # like param; the sum of the gradients since the last whole step


class Accumulate(Transform):
    r"""Take a step with the mean of k gradients: k - 1 calls only add theirs, and the next one makes the step.

    .. math:: g \leftarrow \frac{1}{k} \left(\sum_{i=1}^{k-1} g_i + g_k\right)

    Parameters
    ----------
    accumulate : int
        The number of gradients :math:`k`, at least 1.
    """

    accumulate: int = setting(default=2, range=Range(low=1, kind="int"))

    keyword = "accumulate"
    slots = AccumulateState
    measured = True

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Array, s: Any, h: Scalars) -> Array:
        """The mean."""
        mean: Array = (s.grad_sum + grad) * (1 / h.accumulate)
        return mean

    @staticmethod
    def after(xp: Namespace, new: Array, param: Array, grad: Array, s: Any, h: Scalars) -> tuple[Array, Any]:
        """Begin a new sum."""
        zero = xp.where(s.grad_sum > float("inf"), s.grad_sum, 0.0)  # whatever the old one is: nothing is above that
        return new, AccumulateState(zero)
