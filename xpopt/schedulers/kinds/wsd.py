"""Warm-up, a stable part, and a decay."""

from __future__ import annotations

import math

from ..._settings.ranges import Choice, Range
from ..._settings.setting import setting
from .base import FINITE, STEP, Schedule
from .cosine import fallen
from .curves import between


class wsd(Schedule):
    r"""Warm-up, stable, decay: a rise, a constant value, and a fall at the end.

    Parameters
    ----------
    peak : float
        The value of the stable part. Finite.
    warmup, stable, decay : int
        The steps of the parts. At least 0, and of the decay at least 1.
    stop : float
        The value at the end. Finite.
    curve : {"linear", "cosine", "root"}
        The form of the decay; ``"root"`` is :math:`1 - \sqrt u` of [2]_, at the share :math:`u` of it.

    Raises
    ------
    TypeError, ValueError
        A value is of the wrong type, or out of range.

    References
    ----------
    .. [1] Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
       2024, arXiv:2404.06395, section 4.
    .. [2] Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations", 2024,
       arXiv:2405.18392, section 4.
    """

    peak: float = setting(range=FINITE)
    warmup: int = setting(default=0, range=STEP, kw_only=True)
    stable: int = setting(default=0, range=STEP, kw_only=True)
    decay: int = setting(range=Range(low=1, kind="int"), kw_only=True)
    stop: float = setting(default=0.0, range=FINITE, kw_only=True)
    curve: str = setting(default="linear", range=Choice(("linear", "cosine", "root")), kw_only=True)

    @property
    def length(self) -> float:
        """The steps of all parts."""
        return self.warmup + self.stable + self.decay

    def at(self, step: int) -> float:
        """Return the value in the part that the step is in.

        Parameters
        ----------
        step : int
            Steps made so far.

        Returns
        -------
        float
            The value.
        """
        if step < self.warmup:
            return self.peak * ((step + 1) / (self.warmup + 1))
        share = max(step - self.warmup - self.stable, 0) / self.decay
        left = {"linear": 1 - share, "cosine": fallen(share), "root": 1 - math.sqrt(share)}[self.curve]
        return between(self.peak, self.stop, left)
