"""What a solver has done, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """What is remembered of a step; the first row is of step 0, the start."""

    step: int
    value: float
    gradient_norm: float
    rate: float  # of the step that led here, or of an optimizer's next step
    evaluations: int  # so far
    best_value: float  # so far


@dataclass(frozen=True)
class Result:
    """What `minimize` returns.

    Parameters
    ----------
    params : tree of array, or array
        Where the value was best.
    value : float
        The best value.
    reason : str
        Why it ended.
    step : int
        The number of steps made.
    evaluations : int
        How many values were asked for, rejected ones with them.
    history : list of Row
        A row of ``step``, ``value``, ``gradient_norm``, ``rate``, ``evaluations`` and ``best_value`` for each step,
        and one for the start.
    """

    params: Any
    value: float
    reason: str
    step: int
    evaluations: int
    history: list[Row]

    def plot(self, axes: Any = None) -> Any:
        """Draw value and gradient norm by evaluations.

        Parameters
        ----------
        axes : matplotlib Axes, optional
            Where to; by default in a new figure.

        Returns
        -------
        matplotlib Axes
            With two lines. The value is drawn above its best, on a logarithmic scale.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        if axes is None:
            from matplotlib import pyplot

            _, axes = pyplot.subplots(layout="constrained")
        evaluations = [row.evaluations for row in self.history]
        axes.plot(evaluations, [abs(row.value - self.value) for row in self.history], label="value above the best")
        axes.plot(evaluations, [row.gradient_norm for row in self.history], label="gradient norm")
        axes.set(yscale="log", xlabel="evaluations")
        axes.legend()
        return axes
