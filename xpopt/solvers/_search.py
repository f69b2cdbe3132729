"""A line search under way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence

from .._settings.text import short
from ._linesearch.search import MOST, LineSearch, Trial


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
        self._rule = rule
        self._run = rule.trials(start, step)
        if not isinstance(self._run, Generator):
            raise TypeError(f"trials of {rule} returned {short(self._run)}; wanted a generator, which yields steps")
        self.step = self._next(None)
        """The step to try."""

    def tell(self, found: Trial) -> None:
        """Go on with what was found at the step."""
        if not (math.isfinite(found.value) and math.isfinite(found.slope)):
            found = found._replace(value=math.inf, slope=math.inf)
        self.trials.append(found)
        self.step = self._next(found)

    def _next(self, found: Trial | None) -> float:
        """Return the step that the rule wants, after what was found at the one before; that one where it ends."""
        try:
            step = next(self._run) if found is None else self._run.send(found)
        except StopIteration as end:
            if found is None:
                raise ValueError(f"{self._rule} ended before it tried a step") from None
            self.ended = bool(end.value) and found.value < math.inf
            return found.step
        if not 0 < step < math.inf:
            raise ValueError(f"{self._rule} wants to try the step {step!r}; steps are finite and greater than 0")
        return step

    def _claimed(self, least: float) -> list[Trial]:
        """The trials where the slope still says that the value falls, about as steep as at the start."""
        slope = self.start.slope
        each = [one for one in self.trials if 2 * slope <= one.slope <= slope / 2 and one.linear < 0]
        return [one for one in each if one.step >= least]

    def follows(self, slope: float, least: float, eps: float) -> bool:
        """Whether the value changes as another slope says, at the shortest steps at which rounding does not hide it.

        Parameters
        ----------
        slope : float
            The other slope.
        least : float
            Shorter steps are lost in the rounding of the point.
        eps : float
            The unit of the rounding of values.

        Returns
        -------
        bool
            Whether it does.
        """
        start = self.start
        seen = [one for one in self._claimed(least) if -one.linear > 1e3 * eps * abs(start.value)]
        shortest = min((one.step for one in seen), default=0.0)
        near = [one for one in seen if one.step <= 128 * shortest]
        off = [abs(one.value - start.value - slope * one.step) / -one.linear for one in near]
        enough = max((one.step for one in near), default=0.0) >= 4 * shortest > 0  # more than chance
        return enough and max(off) < 0.2 and abs(slope - start.slope) > abs(start.slope) / 2

    def rises(self, least: float) -> bool:
        """Whether the value rises by what is in proportion to the step, while all slopes say that it falls."""
        # rounding, noise and curvature make it rise as well, but by what is not in proportion
        start, claimed = self.start, self._claimed(least)
        longest = max((one.step for one in claimed), default=0.0)
        shares = [(one.value - start.value) / -one.linear for one in claimed if one.step >= 1e-3 * longest]
        return len(shares) >= 4 and min(shares) > max(0.1, max(shares) / 4)

    @property
    def endless(self) -> bool:
        """Whether it was ended by the number of steps, each longer than the one before."""
        grows = all(one.step < other.step for one, other in itertools.pairwise(self.trials))
        return bool(self.ended) and len(self.trials) >= MOST and grows

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
