"""The schedule that does not change."""

from __future__ import annotations

from .._settings.ranges import NON_NEGATIVE
from .._settings.setting import setting
from .base import SchedulerBase


class ConstantScheduler(SchedulerBase):
    """The same rate at every step.

    Parameters
    ----------
    lr : float
        The rate. Finite, at least 0.

    Raises
    ------
    TypeError, ValueError
        `lr` is not a number, or out of range.
    """

    lr: float = setting(default=0.01, range=NON_NEGATIVE)

    rate_name = "lr"
    reads_step = False

    def learning_rate(self, step: int | None = None, cur_loss: object = None) -> float:
        """Return `lr`.

        Parameters
        ----------
        step, cur_loss : object
            Not looked at.

        Returns
        -------
        float
            The rate.
        """
        return self.lr
