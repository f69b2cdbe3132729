"""The schedule that does not change."""

from __future__ import annotations

from typing import ClassVar

from .._settings.ranges import NON_NEGATIVE, Check
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
        `lr` is no number, or out of range.
    """

    ranges: ClassVar[dict[str, Check]] = {"lr": NON_NEGATIVE}
    rate_name = "lr"
    reads_step = False

    lr: float

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr=lr)

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
