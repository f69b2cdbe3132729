"""Attributes that are computed at their first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - a decorator
    """``functools.cached_property`` without a lock.

    Python 3.11 holds one for all instances while it computes; in a process that is forked in that moment by another
    thread, it would stay held for ever. Threads that come at once compute it each, and all get one result.

    Parameters
    ----------
    function : callable
        Takes the instance, which has a ``__dict__``; pure.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self._name = function.__name__
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> T:
        """Compute it; the next time Python finds it in the instance."""
        found: T = instance.__dict__.setdefault(self._name, self._function(instance))
        return found


def once_for(cls: type[Any], name: str, make: Callable[[], T]) -> T:
    """Return what is computed once for each class and kept in the class itself, so that it goes with it.

    Parameters
    ----------
    cls : type
        The class.
    name : str
        The attribute; that of a base does not count.
    make : callable
        Computes it. Threads that come at once get one result.

    Returns
    -------
    object
        What `make` returned.
    """
    try:
        found: T = cls.__dict__[name]
        return found
    except KeyError:
        pass
    key = cls, name
    mine = _making.setdefault(key, make())
    found = cls.__dict__.get(name, mine)  # another thread may have been done in between
    if found is mine:
        type.__setattr__(cls, name, mine)
    _making.pop(key, None)
    return found


_making: dict[tuple[type[Any], str], Any] = {}
