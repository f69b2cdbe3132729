"""What every method is that needs values: settings, a line search, and what it remembers of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import solvers
from .._arrays.typing import Array
from .._names import NAMES
from .._settings.registry import Registry
from .._settings.value import Value
from .._solvers.solver import Solver
from ..stop import StopRule, gradient_norm, steps
from ._vectors import Space
from .linesearch import LineSearch


class Numbers(NamedTuple):
    """What the host reads at a point that was tried: of gradient g, its change y, and the direction d."""

    value: float
    norm: float  # by which a solver stops
    slope: float
    linear: float
    gg: float  # inner products
    yy: float
    yg: float
    dy: float
    own: np.ndarray[Any, Any]  # what the method has asked for


class Memory:
    """What a method remembers of its steps; of itself nothing, and its direction is the negative gradient.

    Parameters
    ----------
    space : Space
        Of the vectors.
    """

    empty = True
    """Whether its direction is the negative gradient."""
    leaps = False
    """Whether its very first direction between bounds leads to where a long step would."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def measured(self, d: Array, g: Array, y: Array) -> list[Array]:
        """Return what is to be read at a point beside `Numbers`: arrays of one axis or none."""
        return []

    def keep(self, step: float, x: Array, new: Array, d: Array, y: Array, found: Numbers) -> None:
        """Remember a step that was taken."""

    def within(self, free: Array, g: Array) -> None:
        """Look at the elements alone of which `free` is 1 and not 0; `g` is 0 in the others."""

    def direction(self, g: Any, gg: float) -> tuple[Array, float]:
        """Return a direction and the slope along it, from the gradient and its inner product with itself."""
        return -g, -gg

    def forget(self) -> None:
        """Begin anew."""

    def first(self, gg: float, before: tuple[float, float] | None, slope: float) -> float:
        """Return the first step to try.

        Parameters
        ----------
        gg : float
            The inner product of the gradient with itself.
        before : tuple of float or None
            Step and slope of the step that was taken last.
        slope : float
            The slope.

        Returns
        -------
        float
            A length of 1 at first; then what changes the value as much as the last one did.
        """
        if before is None:
            return 1 / gg**0.5
        step, last = before
        return min(step * last / slope, 10 * step)

    def saved(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return it as JSON has it, and arrays by name."""
        return {}, {}

    def restore(self, data: Mapping[str, Any], arrays: Mapping[str, Any], vector: Callable[[str], Array]) -> None:
        """Take back what `saved` returned, with `vector`, which finds one of the arrays as a vector."""


class Method(Value):
    """Base of the methods that need values: they try points before they take a step.

    Parameters
    ----------
    **settings : object
        The settings of the class.
    """

    line_search: LineSearch
    bounded = True
    """Whether it takes bounds."""

    _kind = "method"

    def solver(
        self,
        params: Any,
        stop: StopRule | Callable[[Mapping[str, Any]], Any] | None = None,
        *,
        bounds: tuple[Any, Any] | None = None,
    ) -> Solver:
        """Return a solver that asks for points and is told values.

        Parameters
        ----------
        params : tree of array, or array
            Where to start, between the bounds; copied.
        stop : StopRule or callable, optional
            When to stop. By default where no element of the gradient is larger than 1e-5, or after 10,000 steps. It
            also stops where no lower value can be found.
        bounds : tuple, optional
            The lower and the upper bound of each element: a number, an array like `params`, or a tree like it; None for
            an open side.

        Returns
        -------
        Solver
            At the start.

        Raises
        ------
        TypeError, ValueError
            `params` are no arrays of one library, the bounds are crossed or exclude the start, or the method has none.
        """
        from ._descent import Descent

        return Descent(self, params, stop, bounds)

    def memory(self, space: Space) -> Memory:
        """Return what it remembers before its first step.

        Parameters
        ----------
        space : Space
            Of the vectors.

        Returns
        -------
        Memory
            Empty.
        """
        return Memory(space)


def default_stop() -> StopRule:
    """Return when a method stops that was told nothing about it."""
    return gradient_norm(1e-5) | steps(10_000)


METHODS: Registry[Method] = Registry(
    Method,
    [name for name, module in NAMES["Solvers"].items() if module.startswith("solvers.") and name[0].isupper()],
    lambda name: getattr(solvers, name),
    lambda cls: "line_search" in cls._settings,
)
"""The methods by name."""
