"""The base class of schedules: immutable values with a number for each step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ..._settings.ranges import OrNone, Range
from ..._settings.setting import NONE, setting
from ..._settings.suggest import suggest
from ..._settings.text import format_call, short
from ..._settings.value import Value
from .._elsewhere import MEANT_BY_VALUES
from .algebra import Algebra

COUNT = Range(low=1, kind="int")
STEP = Range(low=0, kind="int")
FINITE = Range()

DEEPEST = 100
"""How deep schedules may be inside of each other."""


if TYPE_CHECKING:  # a checker takes a schedule wherever a setting is a float

    class _Number(float): ...

else:
    _Number = object


class Schedule(Algebra, Value, _Number):
    """A number for each step, as an immutable value whose text is the call that makes it.

    A schedule of your own declares its settings with `setting`, and writes `at`. If one of them is `steps`, that is its
    length. `make_schedule` finds the class by its name. A schedule without `steps` has no end, unless it defines
    `length`. A schedule with state also overrides `begin`, `draw`, `seen` and `restored`, as `plateau` does.

    Parameters
    ----------
    **settings : object
        The settings of the class.

    Raises
    ------
    TypeError, ValueError
        An unknown keyword, or a value of the wrong type or out of its range.

    Examples
    --------
    >>> from xpopt import Range, setting
    >>> from xpopt.schedulers import Schedule, warmup
    >>> class inverse_root(Schedule):
    ...     start: float = setting(default=1.0)
    ...
    ...     def at(self, step):
    ...         return self.start * (step + 1) ** -0.5
    >>> inverse_root(0.5)(3)
    0.25
    >>> warmup(steps=4) >> inverse_root(0.5) * 2
    warmup(steps=4) >> inverse_root(start=0.5) * 2.0
    """

    reads_loss: ClassVar[bool] = False
    """Whether it needs the loss of each step."""

    _kind = "schedule"
    _depth = 1

    @staticmethod
    def _hint(name: str, known: tuple[str, ...], /) -> str:
        return suggest(name, known, MEANT_BY_VALUES)

    @property
    def length(self) -> float:
        """The number of steps after which it ends: an int, infinity if it has no end, or 0 if it is a constant."""
        steps: int | None = vars(self).get("steps")
        return math.inf if steps is None else steps

    def at(self, step: int) -> float:
        """Return the number of a step: the formula.

        Parameters
        ----------
        step : int
            Steps made so far, at least 0 and at most `length`: after its end a schedule has the value of its end.

        Returns
        -------
        float
            The number.
        """
        raise NotImplementedError(f"{type(self).__name__} has no formula; write its at(step)")

    def __call__(self, step: int) -> float:
        """Return the number of a step.

        Parameters
        ----------
        step : int
            Steps made so far, at least 0.

        Returns
        -------
        float
            The number, which is finite.

        Raises
        ------
        TypeError
            `step` is not an int; or the schedule reads the loss: call `values`.
        ValueError
            `step` is negative, or the formula gives no finite number there.
        """
        step = int(STEP.check(type(self).__name__, "step", step))
        if self.begin() is not None:
            raise TypeError(f"{self} depends on earlier steps, not only on the step; call values(n, losses)")
        return FINITE.check(f"{self} at step {step}", "value", self.seen(step, None))

    def values(self, steps: int | Iterable[int], losses: Iterable[float] | None = None) -> npt.NDArray[np.float64]:
        """Return the numbers of several steps.

        Parameters
        ----------
        steps : int or iterable of int
            The number of steps, counted from 0; or the steps.
        losses : iterable of float, optional
            The loss of each of so many steps, for a schedule that reads it.

        Returns
        -------
        ndarray of float64
            A number for each.

        Raises
        ------
        TypeError, ValueError
            As for a call; or `losses` are missing, or fewer than the steps.
        """
        many = not isinstance(steps, Iterable)
        which = range(int(STEP.check(type(self).__name__, "steps", steps))) if many else steps
        if self.begin() is None:
            return np.array([self(step) for step in which], np.float64)  # type: ignore[union-attr]
        if not many:
            raise TypeError(f"{self} depends on earlier steps: give steps as their number, from 0 on")
        seen = list(which) if losses is None else list(losses)  # type: ignore[arg-type]
        if (losses is None and self.reads_loss) or len(seen) < steps:  # type: ignore[operator]
            raise ValueError(f"{self} reads the loss of each step; give {steps} losses")
        state, found = self.begin(), []
        for step in range(steps):  # type: ignore[arg-type]
            value, state = self.draw(step, None if losses is None else seen[step], state)
            found.append(FINITE.check(f"{self} at step {step}", "value", value))
        return np.array(found, np.float64)

    def plot(self, steps: int | None = None, losses: Iterable[float] | None = None, axes: Any = None) -> Any:
        """Draw the numbers over the steps. Needs matplotlib.

        Parameters
        ----------
        steps : int, optional
            The number of steps; by default, until its end, or 1000.
        losses : iterable of float, optional
            As for `values`.
        axes : matplotlib.axes.Axes, optional
            The axes to draw into; by default those of `matplotlib.pyplot`.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        if axes is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError("plot needs matplotlib: pip install 'xpopt[plot]'") from error
            axes = pyplot.gca()
        if steps is None:
            steps = int(self.length) + 1 if 0 < self.length < math.inf else 1000
        axes.plot(self.values(steps, losses))
        axes.set(xlabel="step")
        return axes

    # What it remembers, as data that never changes; None for one that is a function of the step alone

    def begin(self) -> Any:
        """Return the state before the first step, which can be written as JSON; None if it has no state."""
        return None

    def draw(self, step: int, cur_loss: Any, state: Any) -> tuple[float, Any]:
        """Return the number of a step, and the new state.

        Parameters
        ----------
        step : int
            Steps made so far.
        cur_loss : object
            The loss of the step, if `reads_loss`.
        state : object
            What was remembered before; it is not changed.

        Returns
        -------
        number : float
            The number.
        state : object
            What is remembered then.
        """
        return self.seen(step, state), None

    def seen(self, step: int, state: Any) -> float:
        """Return the number of a step without its loss: where the loss matters, the last number.

        Parameters
        ----------
        step : int
            Steps made so far.
        state : object
            What is remembered.

        Returns
        -------
        float
            The number.
        """
        return self.at(min(step, self.length))  # type: ignore[arg-type]

    def restored(self, state: Any) -> Any:
        """Return what a checkpoint says that it remembers, once that has been checked.

        Parameters
        ----------
        state : object
            What JSON has.

        Returns
        -------
        object
            As `begin` and `draw` return it.

        Raises
        ------
        TypeError, ValueError
            It is not the state of such a schedule.
        """
        if state is not None:
            raise ValueError(f"{self} keeps no state; got {short(state)}")
        return None

    def __repr__(self) -> str:
        """Write the call that makes it, without what need not be said: keywords at their default, and None."""
        declared = type(self)._settings
        left_out = {name: one.default for name, one in declared.items() if one.kw_only or one.default is None}
        said = {name: value for name, value in self.settings().items() if left_out.get(name, NONE) != value}
        return format_call(type(self).__name__, said)

    def __copy__(self) -> Self:
        """Return the same."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same."""
        return self


class Endless(Schedule):
    """A schedule that has an end only where it is given one."""

    steps: int | None = setting(default=None, range=OrNone(COUNT), kw_only=True)
