"""The BFGS method with limited memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._arrays.typing import Array
from .._settings.ranges import Range
from .._settings.setting import setting
from .._settings.value import OneOf
from ._method import Memory, Method, Numbers
from ._vectors import Pairs, Space
from .linesearch import LINE_SEARCHES, LineSearch, strong_wolfe

Host = np.ndarray[Any, np.dtype[np.float64]]


class LBFGS(Method):
    r"""L-BFGS, a quasi-Newton method that estimates the curvature from its last steps, with bounds or without.

    .. math:: \theta_{k+1} = \theta_k - t_k H_k \nabla f(\theta_k)

    where :math:`H_k` is the BFGS approximation of the inverse Hessian, made of the last pairs :math:`s_i = \theta_{i+1}
    - \theta_i`, :math:`y_i = \nabla f(\theta_{i+1}) - \nabla f(\theta_i)` and the multiple of the identity
    :math:`s^T y / y^T y` of the newest.

    Parameters
    ----------
    history : int
        The number of pairs that are kept, at least 1. Each needs the memory of two vectors.
    line_search : LineSearch
        The line search that finds :math:`t_k`. The first trial is 1; at the first step it has a length of 1.

    Raises
    ------
    TypeError, ValueError
        A value is out of range, or `line_search` is not a line search.

    Notes
    -----
    The two loops run over coefficients on the host: the direction is one combination of the pairs and the gradient, and
    the inner products that it needs are read together with the value. So the host waits for the device once per
    evaluation, and vectors stay on the device. A pair is skipped if its curvature is not positive beyond rounding.

    With bounds, elements at a bound that would leave the box are held; the others move by the inverse Hessian
    restricted to them; and steps are projected. The host then reads numbers once more after each step. The first step
    that is tried is to the projection of a point far along the negative gradient, shortened to a length of 1 where some
    element has a side without a bound. Bounds that are numbers take no memory, arrays two vectors.

    References
    ----------
    .. [1] Liu and Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming
       45, 1989.
    .. [2] Nocedal and Wright, "Numerical Optimization", 2nd edition, Springer 2006, Algorithms 7.4 and 7.5.
    .. [3] Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM Journal on
       Control and Optimization 20(2), 1982, for bounds.
    """

    history: int = setting(default=10, range=Range(low=1, high=1000, kind="int"))
    line_search: LineSearch = setting(default=strong_wolfe(), range=OneOf(LINE_SEARCHES, "line search"))

    def memory(self, space: Space) -> Memory:
        """Return no pairs.

        Parameters
        ----------
        space : Space
            Of the vectors.

        Returns
        -------
        Memory
            Empty.
        """
        return _Curvature(space, self.history)


class _Curvature(Memory):
    """Pairs, and their inner products.

    Parameters
    ----------
    space : Space
        Of the vectors.
    most : int
        How many pairs are kept.
    """

    leaps = True

    def __init__(self, space: Space, most: int) -> None:
        super().__init__(space)
        self._most = most
        self._pairs = Pairs(space, most)
        self._places: list[int] = []  # of the pairs, the oldest first
        self._used: list[int] = []  # those of positive curvature within the elements that are looked at
        self._products: Host = np.zeros((2 * most, 2 * most))  # of step and change in each place
        self._with_g: Host = np.zeros(2 * most)  # of each with the gradient

    @property
    def empty(self) -> bool:  # type: ignore[override]
        return not self._used

    def measured(self, d: Array, g: Array, y: Array) -> list[Array]:
        count = len(self._places)
        return [self._pairs.dots(count, g), self._pairs.dots(count, y)] if count else []

    def keep(self, step: float, x: Array, new: Array, d: Array, y: Array, found: Numbers) -> None:
        count = len(self._places)
        sy = step * found.dy
        if len(found.own):
            self._with_g[: 2 * count] = found.own[: 2 * count]
        if not sy > -self._space.eps * found.linear or not np.isfinite(found.yy):
            self._used = self._places
            return
        if count < self._most:
            place = count
        else:
            place = self._places[0]
            self._places = self._places[1:]  # it is gone before it is overwritten
        both = slice(2 * place, 2 * place + 2)
        change = np.zeros(2 * self._most)
        change[: len(found.own) // 2] = found.own[len(found.own) // 2 :]
        change[both] = sy, found.yy
        self._pairs.put(place, x, new, y)
        self._products[both.stop - 1, :] = self._products[:, both.stop - 1] = change
        self._with_g[both] = step * found.slope, found.yg
        self._places = self._used = [*self._places, place]

    def within(self, free: Array, g: Array) -> None:
        count = len(self._places)
        if not count:
            return
        rows = self._pairs.rows(count)
        items = [self._pairs.dots(count, row * free) for row in rows]
        numbers = self._space.read([*items, self._pairs.dots(count, g)], g).reshape(-1, 2 * count)
        self._products[: 2 * count, : 2 * count] = numbers[:-1]
        self._with_g[: 2 * count] = numbers[-1]
        ss, sy, yy = (self._products[i::2, j::2].diagonal() for i, j in ((0, 0), (0, 1), (1, 1)))
        good = sy > self._space.eps * np.sqrt(ss * yy)
        self._used = [place for place in self._places if good[place]]

    def direction(self, g: Any, gg: float) -> tuple[Array, float]:
        if not self._used:
            return -g, -gg
        steps = 2 * np.array(self._used)
        changes = steps + 1
        sy, yy = self._products[np.ix_(steps, changes)], self._products[np.ix_(changes, changes)]
        of_steps, of_changes, scale = two_loops(sy, yy, self._with_g[steps], self._with_g[changes])
        numbers = np.zeros(2 * len(self._places))
        numbers[steps], numbers[changes] = of_steps, of_changes
        slope = -scale * gg + of_steps @ self._with_g[steps] + of_changes @ self._with_g[changes]
        d: Any = self._pairs.combined(numbers, g)
        d -= scale * g
        return d, float(slope)

    def forget(self) -> None:
        self._places = self._used = []

    def first(self, gg: float, before: tuple[float, float] | None, slope: float) -> float:
        return 1 / gg**0.5 if self.empty else 1.0

    def saved(self) -> tuple[dict[str, Any], dict[str, Array]]:
        rows = self._pairs.rows(len(self._places))
        used = len(rows)
        products = {"products": self._products[:used, :used], "with_g": self._with_g[:used]}
        return {"places": self._places}, {**{f"pairs/{i}": row for i, row in enumerate(rows)}, **products}

    def restore(self, data: Mapping[str, Any], arrays: Mapping[str, Any], vector: Callable[[str], Array]) -> None:
        places = [int(place) for place in data["places"]]
        if sorted(places) != list(range(len(places))) or len(places) > self._most:
            raise ValueError(f"places are {places}")
        used = 2 * len(places)
        self._products[:used, :used] = np.asarray(arrays["products"], np.float64).reshape(used, used)
        self._with_g[:used] = np.asarray(arrays["with_g"], np.float64).reshape(used)
        for place in range(len(places)):
            step, change = vector(f"pairs/{2 * place}"), vector(f"pairs/{2 * place + 1}")
            self._pairs.put(place, 0 * step, step, change)
        self._places = self._used = places


def two_loops(sy: Host, yy: Host, sg: Host, yg: Host) -> tuple[Host, Host, float]:
    """Return the coefficients of the L-BFGS direction (Algorithm 7.4, with inner products in the place of vectors).

    Parameters
    ----------
    sy, yy : ndarray of float64, (pairs, pairs)
        The products of steps and changes, and of changes with each other, the oldest first.
    sg, yg : ndarray of float64, (pairs,)
        Their products with the gradient.

    Returns
    -------
    of_steps, of_changes : ndarray of float64, (pairs,)
        The direction is the sum of steps and changes times these.
    scale : float
        Less the gradient times this.
    """
    count = len(sg)
    alpha, beta = np.zeros(count), np.zeros(count)
    for i in reversed(range(count)):
        alpha[i] = (sg[i] - sy[i, i + 1 :] @ alpha[i + 1 :]) / sy[i, i]
    scale = float(sy[-1, -1] / yy[-1, -1])
    yr = scale * (yg - yy @ alpha)
    for i in range(count):
        beta[i] = (yr[i] + (alpha - beta)[:i] @ sy[:i, i]) / sy[i, i]
    return beta - alpha, scale * alpha, scale
