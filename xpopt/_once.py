"""An attribute that is computed at its first use."""

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
