"""A method under way: points are tried along a direction until a line search takes one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .._arrays.library import is_complex
from .._arrays.namespace import copy_array
from .._arrays.typing import Array
from .._checkpoint.header import CheckpointError
from .._solvers.conjugates import RISES
from .._solvers.numbers import largest
from .._solvers.saving import like_of
from .._solvers.solver import Solver
from ._box import box_of
from ._linesearch.search import Trial
from ._method import Method, Numbers, default_stop
from ._search import Search
from ._vectors import Space


class Descent(Solver):
    """The solver of a method.

    Parameters
    ----------
    method : Method
        The method.
    params, stop, bounds
        As for `Method.solver`.
    """

    def __init__(self, method: Method, params: Any, stop: Any, bounds: Any) -> None:
        super().__init__(params, default_stop() if stop is None else stop)
        owner = type(method).__name__
        if bounds is not None and not method.bounded:
            raise ValueError(f"{owner} takes no bounds; LBFGS and GradientDescent do")
        leaves = self._model.start()
        self._method = method
        self._space = space = Space(self._model, leaves[0])
        self._x = self._top = space.guard(lambda first: space.settled(space.flat(leaves))[0])(leaves[0])
        self._box = box_of(space, self._model, owner, bounds, self._x)
        self._memory = method.memory(space)
        self._g: Any = None
        self._d: Any = None
        self._gg = math.nan
        self._search: Search | None = None
        self._before: tuple[float, float] | None = None

    @property
    def kind(self) -> str:
        """The method with its settings."""
        return repr(self._method)

    def _wanted(self) -> list[Array]:
        if self._search is None:
            return self._current()
        return self._copies(lambda x: self._box.point(x, self._search_step, self._d))

    def _best(self) -> list[Array]:
        return self._copies(lambda x: self._space.library.copy(self._top))

    def _current(self) -> list[Array]:
        return self._copies(self._space.library.copy)

    def _copies(self, of: Callable[[Any], Any]) -> list[Array]:
        return self._space.guard(lambda like: self._space.leaves(of(self._x)))(self._space.like)

    @property
    def _search_step(self) -> float:
        assert self._search is not None
        return self._search.step

    def _take(self, value: Any, grads: list[Array]) -> None:
        self._space.guard(self._taken)(self._space.like, value, grads)

    def _taken(self, like: Array, value: Any, grads: list[Array]) -> None:
        g, value = self._space.settled(self._space.flat(grads), value)
        if self._search is None:
            self._begun(value, g)
            return
        search, step = self._search, self._search.step
        found, new = self._tried(search, value, g)
        if search.ended is None:
            return
        moved = found.value != search.start.value or found.yy > 0  # else every number is as it was
        if not (search.ended and moved):
            self._given_up(search)
            return
        self._before = step, search.start.slope
        self._arrived(new, g, found.value, found.norm, found.gg, step)
        if search.endless and not self._reason:
            self._reason = "the value falls without bound along a direction"

    def _tried(self, search: Search, value: Any, g: Any) -> tuple[Numbers, Any]:
        """Tell the search what was found; return that, and the point where it is taken."""
        x, d, step = self._x, self._d, search.step
        space, box, dot = self._space, self._box, self._space.dot
        new = box.point(x, step, d) if box.closed else None
        items = [value, box.stationarity(new, g)]  # before there is another vector
        y = g - self._g
        items += [box.slope(x, step, d, g), box.linear(x, new, step, self._g, search.start.slope)]
        items += [dot(g, g), dot(y, y), dot(y, g), dot(d, y)]
        numbers = space.read([*items, *([] if box.closed else self._memory.measured(d, g, y))], g)
        value, norm, slope, linear, gg, yy, yg, dy = map(float, numbers[:8])
        if box.closed and slope > 0 and value < search.start.value:
            slope = 0.0  # where an element arrives the value may turn at once, and no step is flat
        found = Numbers(value, norm, slope, linear, gg, yy, yg, dy, numbers[8:])
        search.tell(Trial(step, value, slope, linear))
        self._evaluations += 1
        if search.ended:
            (new,) = space.settled(box.point(x, step, d) if new is None else new)
            self._memory.keep(step, x, new, d, y, found)
        return found, new

    def _begun(self, value: Any, g: Any) -> None:
        """Take the value at the start."""
        x = self._x
        numbers = self._space.read([value, self._box.stationarity(x, g), self._space.dot(g, g)], g)
        value, norm, gg = map(float, numbers)
        if math.isfinite(value) and math.isfinite(norm):
            self._evaluations += 1
            self._arrived(x, g, value, norm, gg, 0.0)
        else:
            self._model.check_start(self._current())
            self._evaluations += 1
            self._reason = "the value or the gradient at the start is not finite"

    def _arrived(self, x: Any, g: Any, value: float, norm: float, gg: float, step: float) -> None:
        """Go on from a point."""
        row = self._row(self.step + 1 if self._history else 0, value, norm, step)
        top = x if row.best_value == value != self.best_value else self._top
        self._x, self._g, self._gg, self._top = x, g, gg, top
        self._history.append(row)
        self._directed(value)
        reason = self._stop(self.info())
        if reason:
            self._reason, self._by_rule = reason, True

    def _directed(self, value: float) -> None:
        """Choose a direction, and begin to search along it."""
        x, g, gg = self._x, self._g, self._gg
        if self._box.closed:
            free = self._box.free(x, g)
            g = g * free
            gg = float(self._space.read([self._space.dot(g, g)], g)[0])
            self._memory.within(free, g)
        if gg == 0 or not math.isfinite(gg):
            norm = self._history[-1].gradient_norm
            self._reason = "the gradient is 0"
            if norm:
                self._reason = f"the square of a gradient of {norm:.3g} is out of range; scale value and gradient"
            return
        if self._box.closed and self._memory.leaps and not self.step:
            slope, first = self._leapt(g, gg)
        else:
            d, slope = self._memory.direction(g, gg)
            if not (slope < 0 and math.isfinite(slope)):
                self._memory.forget()
                d, slope = -g, -gg
            (self._d,) = self._space.settled(d * free if self._box.closed else d)
            first = self._memory.first(gg, self._before, slope)
        self._search = Search(self._method.line_search, Trial(0.0, value, slope, 0.0), first)

    def _leapt(self, g: Any, gg: float) -> tuple[float, float]:
        """Choose the very first direction between bounds; return the slope along it, and the first step to try."""
        dot = self._space.dot
        (self._d,) = self._space.settled(self._box.leap(self._x, g, gg))
        slope, dd = map(float, self._space.read([dot(self._d, g), dot(self._d, self._d)], g))
        return slope, min(1.0, dd**-0.5) if self._box.open else 1.0

    def _given_up(self, search: Search) -> None:
        """Go on along the gradient from a step of length 1, or no more."""
        if not (self._memory.empty and self._before is None):
            self._memory.forget()
            self._before = None
            self._directed(search.start.value)
            return
        self._reason = "no lower value was found along the negative gradient, within the rounding of values"
        if self._is_wrong(search):
            self._reason = RISES
            if self.step == 0:
                raise ValueError(self._reason)

    def _is_wrong(self, search: Search) -> bool:
        """Whether the values near by are not those of the gradient."""
        space, d = self._space, self._d
        of_conjugate = [space.dot(d, space.conjugate(self._g))] if any(map(is_complex, self._model.dtypes)) else []
        numbers = space.read([largest(space.xp, self._x), largest(space.xp, d), *of_conjugate], d)
        farthest, longest, *slopes = map(float, numbers)
        least = 1e3 * space.eps * farthest / longest
        return search.rises(least) or any(search.follows(slope, least, space.eps) for slope in slopes)

    def _saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        data, kept = self._memory.saved()
        search = None if self._search is None else self._search.saved()
        before = None if self._before is None else list(self._before)
        vectors = {"x": self._x, "best": self._top, "g": self._g, "d": self._d}
        arrays = {**{f"memory/{key}": x for key, x in kept.items()}, **vectors}
        copied = {key: copy_array(x) for key, x in arrays.items() if x is not None}
        return {"memory": data, "search": search, "before": before, "gg": self._gg}, copied

    def _restored(self, data: Mapping[str, Any], arrays: Mapping[str, Any]) -> Callable[[], None]:
        def vector(key: str) -> Array:
            return like_of(arrays[key], self._x, key)

        memory = self._method.memory(self._space)
        kept = {key[7:]: x for key, x in arrays.items() if key.startswith("memory/")}
        memory.restore(data["memory"], kept, lambda key: vector(f"memory/{key}"))
        x, best = vector("x"), vector("best")
        outside = self._space.guard(lambda x: self._box.outside(x) or self._box.outside(best))(x)
        if outside:
            raise CheckpointError(f"x in the checkpoint is outside of the bounds of this solver in {outside} elements")
        g = d = search = None
        if data["search"] is not None:
            g, d = vector("g"), vector("d")
            search = Search.restored(self._method.line_search, **data["search"])
        before = None if data["before"] is None else (float(data["before"][0]), float(data["before"][1]))
        gg = float(data["gg"])

        def become() -> None:
            self._memory, self._x, self._top, self._g, self._d = memory, x, best, g, d
            self._search, self._before, self._gg = search, before, gg

        return become
