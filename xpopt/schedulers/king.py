"""The schedule that watches the loss."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .._settings.ranges import NON_NEGATIVE, Range
from .._settings.setting import setting
from .._settings.text import short
from .base import SchedulerBase
from .kinds.loss import finite_loss

FINITE = Range()


class KingScheduler(SchedulerBase):
    r"""A rate multiplied by `decay` at every step at which the loss has probably stopped falling.

    A line is fitted by least squares to the last :math:`n = patience + 1` losses. With its slope :math:`s` and the sum
    of squared residuals SSR, the loss is falling with probability

    .. math:: P = \Phi\left(\frac{-s}{\sqrt{v + \epsilon}}\right), \qquad
              v = \frac{12}{n^3 - n} \, \frac{\mathrm{SSR}}{n - 2},

    where :math:`\epsilon` is the machine epsilon of float64. The rate decays where :math:`P < 0.51` and, so that a few
    spikes do not decide, :math:`P < 0.51` again without the losses above the 0.9 quantile (linear interpolation) of
    those kept, if enough remain. On a plateau that is at every step.

    Parameters
    ----------
    initial_lr : float
        The rate at the start. Finite, at least 0.
    patience : int
        The steps in which the loss should have fallen, at least 2. The first `patience` steps keep the rate.
    decay : float
        The factor, in (0, 1].

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    Notes
    -----
    The last ``ceil(10 * patience / 9) + 1`` losses are kept, the smallest number whose lower 90 % fill a window. Work
    and memory of a step are proportional to `patience`. A loss on a device is copied to the host.

    The method is that of [1]_.

    References
    ----------
    .. [1] D. King, "Automatic Learning Rate Scheduling That Really Works", dlib blog, 2018,
       http://blog.dlib.net/2018/02/automatic-learning-rate-scheduling-that.html
    """

    initial_lr: float = setting(default=0.01, range=NON_NEGATIVE)
    patience: int = setting(default=1000, range=Range(low=2, kind="int"))
    decay: float = setting(default=0.99, range=Range(low=0, high=1, open_low=True))

    rate_name = "initial_lr"
    reads_step = False
    reads_loss = True

    def reset(self) -> None:
        """Discard the losses and return to `initial_lr`."""
        self._losses: list[float] = []
        self._rate = self.initial_lr

    def learning_rate(self, step: int | None = None, cur_loss: Any = None) -> float:
        """Record a loss and return the rate.

        Parameters
        ----------
        step : object
            Not looked at.
        cur_loss : float
            The loss at this step, finite; anything that `float` takes.

        Returns
        -------
        float
            The rate.

        Raises
        ------
        ValueError
            `cur_loss` is not finite; it is not recorded.
        """
        # Replaced, never changed in place: whatever is raised below, the history is whole.
        losses = [*self._losses, finite_loss(type(self).__name__, cur_loss)][-self._longest :]
        rate = self._rate * self.decay if self._stalled(np.asarray(losses)) else self._rate
        self._losses, self._rate = losses, rate
        return rate

    def set_params(self, hparam_dict: Mapping[str, Any]) -> None:
        """Change hyperparameters, all of those given or none.

        A new `initial_lr` restarts the schedule. A new `patience` keeps as many of the newest losses as it needs.

        Parameters
        ----------
        hparam_dict : mapping
            New values by keyword. ``"id"`` may be there if it is the class name.

        Raises
        ------
        KeyError
            A key is unknown.
        TypeError, ValueError
            A value is of the wrong type or out of range, or ``"id"`` is of another class.
        """
        super().set_params(hparam_dict)
        self._losses = self._losses[-self._longest :]
        if "initial_lr" in hparam_dict:
            self.reset()

    def state(self) -> dict[str, Any]:
        """Return the current rate and the losses that are kept.

        Returns
        -------
        dict
            ``{"rate": float, "losses": [float, ...]}``, the newest loss last.
        """
        return {"rate": self._rate, "losses": list(self._losses)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken.

        Parameters
        ----------
        state : mapping
            What `state` returned.

        Raises
        ------
        TypeError, ValueError
            It is not the state of such a schedule; nothing has changed then.
        """
        if set(state) != {"rate", "losses"}:
            raise ValueError(f"KingScheduler: state is {short(state)}; wanted a dict of 'rate' and 'losses'")
        rate = NON_NEGATIVE.check("KingScheduler", "rate", state["rate"])
        if not isinstance(state["losses"], list | tuple):
            raise TypeError(f"KingScheduler: losses={short(state['losses'])} in state; wanted a list of numbers")
        losses = [
            loss if type(loss) is float and math.isfinite(loss) else FINITE.check("KingScheduler", "a loss", loss)
            for loss in state["losses"]
        ]
        if len(losses) > self._longest:
            raise ValueError(f"KingScheduler: state has {len(losses)} losses; {self} keeps {self._longest}")
        self._losses, self._rate = losses, rate

    @property
    def _longest(self) -> int:
        return -(-10 * self.patience // 9) + 1

    def _stalled(self, losses: npt.NDArray[np.float64]) -> bool:
        window = self.patience + 1
        if len(losses) < window or falling(losses[-window:]) >= 0.51:
            return False
        # The 0.9 quantile lies in [a, b) of two neighbours in order, or a = b: above it is what is above a. The
        # index in integers, since 0.9 * (length - 1) in floats can fall one short.
        index = 9 * (len(losses) - 1) // 10
        lower = losses[losses <= np.partition(losses, index)[index]]
        return len(lower) >= window and falling(lower[-window:]) < 0.51


def falling(losses: npt.NDArray[np.float64]) -> float:
    """Return the probability that `losses` go down.

    Parameters
    ----------
    losses : ndarray of shape (n,)
        Finite, n at least 3, oldest first.

    Returns
    -------
    float
        In [0, 1]; 0.5 where the fitted line is level.
    """
    n = len(losses)
    with np.errstate(all="ignore"):  # what underflows here is nothing beside the largest loss
        # A power of two rounds nothing, and brings losses of 1e300 to where their squares are finite.
        exponent = max(0, math.frexp(float(np.max(np.abs(losses))))[1])
        y = np.ldexp(losses, -exponent)
        y = y - y[0]  # a constant becomes exactly 0, whatever its mean would round to
        y = y - np.mean(y)
        t = np.arange(n) - (n - 1) / 2
        slope = float(np.dot(t, y)) * 12 / (n**3 - n)
        residual = y - slope * t
        variance = 12 * float(np.dot(residual, residual)) / (n - 2) / (n**3 - n)
    spread = math.sqrt(variance + math.ldexp(sys.float_info.epsilon, -2 * exponent))
    if spread == 0:  # beside losses so large, epsilon is nothing either
        return 0.5 if slope == 0 else float(slope < 0)
    return math.erfc(slope / spread / math.sqrt(2)) / 2
