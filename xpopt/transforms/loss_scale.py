"""Loss scaling: gradients are divided by the number by which the loss was multiplied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .._settings.ranges import POSITIVE, Range
from .._settings.setting import setting
from .base import Transform


class LossScale(Transform):
    r"""Divide the gradient by the number that the loss was multiplied by.

    Parameters
    ----------
    loss_scale : float
        The number. Finite, greater than 0; a power of two changes no digit.

    Raises
    ------
    TypeError, ValueError
        `loss_scale` is not a number, or out of range.

    References
    ----------
    .. [1] Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740, section 3.2.
    """

    loss_scale: float = setting(default=2.0**16, range=POSITIVE)

    keyword = "loss_scale"
    takes_schedules = False  # the loss is multiplied before the step

    @staticmethod
    def before(xp: Namespace, param: Array, grad: Any, s: Any, h: Scalars) -> Array:
        """The gradient of the loss."""
        unscaled: Array = grad * (1 / h.loss_scale)
        return unscaled

    @staticmethod
    def limit(h: Scalars, largest: Any, size: Callable[[], Any]) -> Any:
        """So much larger may what comes be."""
        return largest * h.loss_scale

    @staticmethod
    def bound(h: Scalars, norm: float) -> float:
        """So much larger may its norm be: engines measure the gradient that comes."""
        bound: float = norm * h.loss_scale
        return bound


class DynamicLossScale(LossScale):
    r"""Divide the gradient by a scale of the loss that adapts to steps that are not finite.

    After a step with a gradient that is not finite, which is skipped, the scale is multiplied by `backoff`. After
    `every` steps without one, it is multiplied by `growth`. `OptimizerBase.cur_loss_scale` is its current value.

    Parameters
    ----------
    loss_scale : float
        The scale at the start. Finite, greater than 0.
    growth : float
        The factor after finite steps, at least 1.
    backoff : float
        The factor after a step that is not finite, in (0, 1).
    every : int
        The number of finite steps after which the scale grows. At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Notes
    -----
    It stays between :math:`2^{-60}` and :math:`2^{60}`. The defaults are those of ``torch.amp.GradScaler``.

    References
    ----------
    .. [1] Micikevicius et al., "Mixed Precision Training", ICLR 2018, arXiv:1710.03740, section 3.2.
    """

    growth: float = setting(default=2.0, range=Range(low=1), kw_only=True)
    backoff: float = setting(default=0.5, range=Range(low=0, high=1, open_low=True, open_high=True), kw_only=True)
    every: int = setting(default=2000, range=Range(low=1, kind="int"), kw_only=True)
