"""The schedule of the Transformer."""

from __future__ import annotations

from .._settings.ranges import Range
from .._settings.setting import setting
from .base import SchedulerBase


class NoamScheduler(SchedulerBase):
    r"""A rate that rises in proportion to the step for `warmup_steps`, then falls as ``step**-0.5``.

    .. math:: \alpha_t = k \, m^{-1/2} \min(t^{-1/2}, \; t \, w^{-3/2})

    Parameters
    ----------
    model_dim : int or float
        :math:`m`, the width of the model. Finite, above 0.
    scale_factor : int or float
        :math:`k`. Finite, at least 0.
    warmup_steps : int or float
        :math:`w`, in steps. Finite, above 0.

    Raises
    ------
    TypeError, ValueError
        A value is not a number, or out of range.

    Notes
    -----
    Equation 3 of [1]_, times `scale_factor`. Step 0, where the equation gives 0, counts as step 1. There is no
    starting rate to set, so an optimizer's `lr` changes nothing here.

    References
    ----------
    .. [1] Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv:1706.03762.
    """

    model_dim: float = setting(default=512, range=Range(low=0, open_low=True, kind="number"))
    scale_factor: float = setting(default=1, range=Range(low=0, kind="number"))
    warmup_steps: float = setting(default=4000, range=Range(low=0, open_low=True, kind="number"))

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
        t = max(step, 1)
        rate: float = self.scale_factor * self.model_dim**-0.5 * min(t**-0.5, t * self.warmup_steps**-1.5)
        return rate
