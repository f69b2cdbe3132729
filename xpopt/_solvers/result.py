"""What a solver has done, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """The record of a step; the first row is of step 0, the start."""

    step: int
    value: float
    gradient_norm: float
    rate: float  # of the step that led here, or of an optimizer's next step
    evaluations: int  # so far
    best_value: float  # so far


class Rows(Sequence[Row]):
    """The rows of a solver so far, for a rule, which may not change them.

    Parameters
    ----------
    rows : list of Row
        They are not copied: there may be many, and a rule is asked at each step.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        return self._rows[at]

    def __repr__(self) -> str:
        return repr(self._rows)


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
