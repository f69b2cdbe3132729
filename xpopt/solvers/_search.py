"""A line search under way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .linesearch import LineSearch, Trial


class Search:
    """A line search that is told one trial after the other; what it was told is all that it remembers.

    Parameters
    ----------
    rule : LineSearch
        How to search.
    start : Trial
        What is known at step 0.
    step : float
        The first step to try.
    """

    def __init__(self, rule: LineSearch, start: Trial, step: float) -> None:
        self.start = start
        self.first = step
        self.trials: list[Trial] = []
        self.ended: bool | None = None
        """Whether the last step is taken; None while the search goes on."""
        self._run = rule.trials(start, step)
        self.step = next(self._run)
        """The step to try."""

    def tell(self, found: Trial) -> None:
        """Go on with what was found at the step."""
        if not (math.isfinite(found.value) and math.isfinite(found.slope)):
            found = found._replace(value=math.inf, slope=math.inf)
        self.trials.append(found)
        try:
            self.step = self._run.send(found)
        except StopIteration as end:
            self.ended = bool(end.value)

    def rises(self, eps: float) -> bool:
        """Whether the value rises from the start on, where the slope says that it falls."""
        # asked of the shortest step over which the fall would stand out of the rounding of values
        least = 1e4 * eps * max(abs(self.start.value), 1e-300)
        seen = [one for one in self.trials if -one.linear > least and math.isfinite(one.value)]
        if not seen:
            return False
        nearest = min(seen, key=lambda one: one.step)
        return nearest.value - self.start.value > -0.1 * nearest.linear

    def saved(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {"start": list(self.start), "first": self.first, "trials": [list(one) for one in self.trials]}

    @classmethod
    def restored(cls, rule: LineSearch, start: Sequence[float], first: float, trials: list[list[float]]) -> Search:
        """Return the search that was saved."""
        search = cls(rule, Trial(*start), first)
        for one in trials:
            search.tell(Trial(*one))
        return search
