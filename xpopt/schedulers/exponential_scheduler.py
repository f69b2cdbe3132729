"""Exponential decay."""

from __future__ import annotations

import math

from .._settings.ranges import FLAG, NON_NEGATIVE, POSITIVE, Range
from .._settings.setting import setting
from .base import SchedulerBase


class ExponentialScheduler(SchedulerBase):
    r"""A rate multiplied by `decay` every `stage_length` steps, smoothly or in stairs.

    .. math:: \alpha_t = \alpha_0 \, d^{\,t / T}

    with :math:`\lfloor t / T \rfloor` for the exponent if `staircase`.

    Parameters
    ----------
    initial_lr : float
        The rate :math:`\alpha_0` at step 0. Finite, at least 0.
    stage_length : int or float
        :math:`T`, in steps. Finite, above 0.
    staircase : bool
        Whether the rate stays the same through a stage and falls at its end.
    decay : float
        :math:`d`, the factor of one stage. Finite, above 0; above 1 the rate grows.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.
    """

    initial_lr: float = setting(default=0.01, range=NON_NEGATIVE)
    stage_length: float = setting(default=500, range=Range(low=0, open_low=True, kind="number"))
    staircase: bool = setting(default=False, range=FLAG)
    decay: float = setting(default=0.1, range=POSITIVE)

    rate_name = "initial_lr"

    def learning_rate(self, step: int, cur_loss: object = None) -> float:
        """Return the rate at `step`.

        Parameters
        ----------
        step : int
            Steps made so far, at least 0.
        cur_loss : object
            Not looked at.

        Returns
        -------
        float
            The rate.
        """
        stages = step / self.stage_length
        return self.initial_lr * self.decay ** (math.floor(stages) if self.staircase else stages)
