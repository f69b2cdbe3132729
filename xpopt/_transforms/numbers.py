"""The numbers of a step as transforms read them, and what is inside of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._arrays.typing import Array, Scalars
from ..transforms.base import Formula


class Numbers:
    """The numbers of a step as one transform reads them, by its own names.

    Parameters
    ----------
    h : Scalars
        The numbers.
    transform : Formula
        The transform.
    dtype : str
        Of the parameters, where it matters.
    """

    __slots__ = ("_dtype", "_h", "_transform")

    def __init__(self, h: Scalars, transform: Formula, dtype: str = "") -> None:
        self._h = h
        self._transform = transform
        self._dtype = dtype

    def __getattr__(self, name: str) -> Any:
        if name == "model":
            return self._h.model.of(self._transform.full_name)
        try:
            return getattr(self._h, name if name in ("lr", "t") else self._transform.number(name, self._dtype))
        except AttributeError:
            raise AttributeError(
                f"{self._transform.name} reads h.{name}, which is none of its numbers; declare a setting {name!r}, or "
                f"return it from `scalars`"
            ) from None


class Rated:
    """The numbers of a step where the learning rate is another one for each element.

    Parameters
    ----------
    h : Scalars
        The numbers.
    lr : array
        The rates.
    """

    __slots__ = ("_h", "lr")

    def __init__(self, h: Scalars, lr: Array) -> None:
        self._h = h
        self.lr = lr

    def __getattr__(self, name: str) -> Any:
        return getattr(self._h, name)


class Projecting:
    """The numbers of a step for a rule that projects by itself.

    Parameters
    ----------
    h : Scalars
        The numbers.
    project : callable
        From an array to its projection.
    """

    __slots__ = ("_h", "project")

    def __init__(self, h: Scalars, project: Callable[[Array], Array]) -> None:
        self._h = h
        self.project = project

    def __getattr__(self, name: str) -> Any:
        return getattr(self._h, name)


class OnHost:
    """The numbers of a step for `scalars`, on the host, where the learning rate is an array.

    Parameters
    ----------
    h : Scalars
        The numbers.
    owner : str
        Who reads them.
    """

    __slots__ = ("_h", "_owner")

    def __init__(self, h: Scalars, owner: str) -> None:
        self._h = h
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        if name == "lr":
            raise TypeError(
                f"{self._owner}.scalars reads h.lr, which is an array here, for lr_scale is one; give lr_scale a number"
            )
        return getattr(self._h, name)


def read(transforms: Sequence[Formula], states: Sequence[Any], h: Scalars, dtype: str) -> tuple[list[Scalars], Scalars]:
    """Return the numbers of a step as each of some transforms reads them, and as what is inside them does.

    Parameters
    ----------
    transforms : sequence of Formula
        The outermost first.
    states : sequence of NamedTuple
        The slots of each.
    h : Scalars
        The numbers.
    dtype : str
        As for `Numbers`.

    Returns
    -------
    found : list of Scalars
    h : Scalars
    """
    found: list[Scalars] = []
    for transform, state in zip(transforms, states, strict=True):
        found.append(Numbers(h, transform, dtype))
        if transform.rates is not None:
            h = Rated(h, transform.rates(state, found[-1]))
    return found, h
