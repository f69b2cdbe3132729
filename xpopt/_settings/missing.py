"""Attributes that people know from other libraries and look for here."""

from __future__ import annotations

from typing import Any, Never


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


class Listed:
    """A class with such attributes, which `dir` leaves out."""

    def __dir__(self) -> list[str]:
        """List the attributes that there are."""
        return [name for name in super().__dir__() if name in vars(self) or hasattr(type(self), name)]
