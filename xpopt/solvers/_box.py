"""Where a search may go: everywhere, or between bounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays.containers import is_container
from .._arrays.library import is_complex
from .._arrays.namespace import library_of
from .._arrays.parameter import dtype_text, is_number
from .._arrays.tree import flatten, matched, show, show_all
from .._arrays.typing import Array
from .._settings.text import short
from .._solvers.model import Model
from .._solvers.numbers import largest
from ._vectors import Space


class Everywhere:
    """No bounds.

    Parameters
    ----------
    space : Space
        Of the vectors.
    """

    closed = False
    open = True
    """Whether some elements have a side without a bound."""

    def __init__(self, space: Space) -> None:
        self._space = space

    def point(self, x: Any, step: float, d: Any) -> Any:
        """Return the point that a step along a direction leads to."""
        new = step * d
        new += x  # in place, where that can be
        return new

    def stationarity(self, x: Any, g: Any) -> Array:
        """Return the largest magnitude of what a step of length 1 along the negative gradient would change."""
        return largest(self._space.xp, g)

    def slope(self, x: Array, step: float, d: Any, g: Any) -> Any:
        """Return the derivative of the value by the step; an array of shape (), or a float."""
        return self._space.dot(d, g)

    def linear(self, x: Array, new: Any, step: float, g: Any, slope: float) -> Any:
        """Return the change of the value to first order, from the gradient and the slope at step 0."""
        return step * slope

    def outside(self, x: Array) -> int:
        """Return how many elements are not between the bounds."""
        return 0

    def free(self, x: Array, g: Array) -> Any:
        """Return 1 for each element that may move along the negative gradient, else 0."""
        raise NotImplementedError

    def leap(self, x: Array, g: Array, gg: float) -> Any:
        """Return the way to where a long step along the negative gradient leads."""
        raise NotImplementedError


class Box(Everywhere):
    """Bounds for each element, which may be infinite.

    Parameters
    ----------
    space : Space
        Of the vectors.
    low, high : array, (size,) or ()
        The bounds.
    open_ : bool
        Whether some of them are infinite.
    """

    closed = True

    def __init__(self, space: Space, low: Array, high: Array, *, open_: bool) -> None:
        super().__init__(space)
        self._low, self._high = low, high
        self.open = open_

    def project(self, x: Any) -> Any:
        """Return the nearest point between the bounds."""
        xp = self._space.xp
        return xp.minimum(xp.maximum(x, self._low), self._high)

    def point(self, x: Any, step: float, d: Any) -> Any:
        """Project it."""
        return self.project(super().point(x, step, d))

    def stationarity(self, x: Any, g: Any) -> Array:
        """Project the step."""
        return largest(self._space.xp, self.project(x - g) - x)

    def slope(self, x: Any, step: float, d: Any, g: Any) -> Any:
        """Leave out the elements that have arrived at a bound before."""
        new = super().point(x, step, d)
        moving = (new >= self._low) & (new <= self._high)
        del new  # one vector less at a time
        return self._space.dot(self._space.xp.where(moving, d, self._space.like), g)

    def linear(self, x: Any, new: Any, step: float, g: Any, slope: float) -> Any:
        """Take the way that is left of the step."""
        return self._space.dot(new - x, g)

    def outside(self, x: Any) -> int:
        """Count them."""
        space = self._space
        return int(space.read([space.xp.sum(space.xp.astype(self.project(x) != x, space.dtype))], x)[0])

    def free(self, x: Any, g: Any) -> Any:
        """Leave out those that would leave the bounds at once."""
        held = ((x <= self._low) & (g > 0)) | ((x >= self._high) & (g < 0))
        return 1 - self._space.xp.astype(held, g.dtype)

    def leap(self, x: Any, g: Any, gg: float) -> Any:
        """Project a step of length 100: elements whose bound is near go there, whatever the others do."""
        return self.project(x - (100 / gg**0.5) * g) - x


def box_of(space: Space, model: Model, owner: str, bounds: Any, x: Array) -> Everywhere:
    """Return the bounds that came, checked.

    Parameters
    ----------
    space : Space
        Of the vectors.
    model : Model
        The parameters.
    owner : str
        The method, for messages.
    bounds : tuple or None
        The lower and the upper bound, each a number, an array like the one parameter, a tree like the parameters with
        None for an open one, or None.
    x : array, (size,)
        Where to start.

    Returns
    -------
    Everywhere
        A `Box` where there is a bound.

    Raises
    ------
    TypeError
        They are no pair, or one of them or a parameter is complex.
    ValueError
        They are crossed or NaN, or the start is outside.
    """
    if bounds is None:
        return Everywhere(space)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(
            f"{owner}: bounds={short(bounds)} is not a pair; wanted (low, high), with None for an open side"
        )
    if any(map(is_complex, model.dtypes)):
        raise TypeError(f"{owner}: bounds are for real parameters; for complex ones, minimize over the two parts")
    low: Any = _flat(space, model, f"{owner}: low end of bounds", bounds[0], -np.inf, x)
    high: Any = _flat(space, model, f"{owner}: high end of bounds", bounds[1], np.inf, x)
    xp = space.xp

    def counted(x: Any) -> Any:
        ordered, inside = low <= high, (x >= low) & (x <= high)
        each = xp.isnan(low) | xp.isnan(high), xp.isnan(x), ~ordered, ~inside, xp.isinf(low) | xp.isinf(high)
        leaves = [leaf for one in each for leaf in space.pieces(xp.broadcast_to(one, x.shape))]
        return space.read([xp.sum(xp.astype(leaf, space.dtype)) for leaf in leaves], x)

    *counts, infinite = space.guard(counted)(x).reshape(5, -1).astype(int)
    messages = (
        "bounds are NaN in {} elements; wanted a number, or None for an open side",
        "params starts from NaN in {} elements; start from finite numbers",
        "bounds are crossed in {} elements; wanted (low, high), the lower first",
        "params starts outside of bounds in {} elements; start inside, such as with clip(params, low, high)",
    )
    for each, message in zip(counts, messages, strict=True):
        if each.any():
            of = show_all(name for name, count in zip(model.names, each, strict=True) if count)
            raise ValueError(f"{owner}: {message.format(each.sum())} (of {of})")
    return Box(space, low, high, open_=bool(infinite.any()))


def _flat(space: Space, model: Model, what: str, end: Any, open_: float, like: Array) -> Array:
    """Return one end of the bounds as a vector, or an array of shape () where it is one number."""
    xp = space.xp
    if end is None or _is_number(end):
        number = np.asarray(open_ if end is None else end, np.float64)
        return space.guard(lambda like: space.library.from_numpy(number, like))(space.like)
    ends: Mapping[Any, Any] = dict.fromkeys(model.names, end)
    if is_container(end):
        if model.alone:
            raise TypeError(
                f"{what} is a {type(end).__name__}; wanted a number, or an array of shape {model.shapes[0]}: bounds "
                f"are (low, high), not a pair for each element"
            )
        ends = matched(dict.fromkeys(model.names), flatten(end, what), what)
    leaves = []
    for name, shape in zip(model.names, model.shapes, strict=True):
        one: Any = ends[name]
        if one is None or _is_number(one):
            one = np.full(shape, open_ if one is None else one)
        elif library_of(one) is None or tuple(one.shape) not in ((), shape):
            came = tuple(one.shape) if hasattr(one, "shape") else type(one).__name__
            raise ValueError(f"{what}, of {show(name)}: {came}; wanted a number, or an array of shape {shape}")
        elif is_complex(one.dtype):
            raise TypeError(f"{what}, of {show(name)}, is {dtype_text(one.dtype)}; wanted real numbers")
        if library_of(one) is not space.library:
            own = library_of(one)
            assert own is not None
            (host,) = own.to_numpy([one])
            one = space.library.from_numpy(np.asarray(host, np.float64), like)
        leaves.append(xp.broadcast_to(xp.astype(one, space.dtype, copy=False), shape))
    return space.guard(lambda _: space.flat(leaves))(like)


def _is_number(x: Any) -> bool:
    return is_number(x) or (isinstance(x, int) and not isinstance(x, bool))
