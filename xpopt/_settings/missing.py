"""Attributes that people know from other libraries and look for here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Never, TypeVar

C = TypeVar("C", bound=type[Any])


class NotHere:
    """An attribute that is not there: whoever asks for it gets an AttributeError that says what is.

    Parameters
    ----------
    way_out : str
        What there is in its place.
    """

    # a descriptor for each, since a `__getattr__` would slow every other attribute
    def __init__(self, way_out: str) -> None:
        self._way_out = way_out

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type[Any]) -> Never:
        raise AttributeError(f"{owner.__name__} has no attribute {self._name!r}: {self._way_out}")


def present(instance: object, names: Iterable[str]) -> list[str]:
    """Return those of an instance's attributes that are no `NotHere`, for its ``__dir__``."""
    return [name for name in names if name in vars(instance) or hasattr(type(instance), name)]


class Listed:
    """A class with such attributes, which `dir` leaves out."""

    def __dir__(self) -> list[str]:
        """List the attributes that there are."""
        return present(self, super().__dir__())


def answers(attributes: Mapping[str, str]) -> Callable[[C], C]:
    """Return a decorator that gives a class such attributes.

    Parameters
    ----------
    attributes : mapping of str to str
        What there is in place of each, by name.

    Returns
    -------
    callable
        Takes the class and returns it.
    """

    def decorate(cls: C) -> C:
        for name, way_out in attributes.items():
            attribute = NotHere(way_out)
            attribute.__set_name__(cls, name)
            setattr(cls, name, attribute)
        return cls

    return decorate
