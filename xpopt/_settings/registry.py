"""Classes by name: those of users, those of this package, and those that other distributions register."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from . import entry_points
from .caller import PACKAGE

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes that text, dicts and files may name.

    A user's class comes before one of this package, and this one before those of distributions that have entry points,
    whatever was imported first. Of several classes that users have given one name, the last one counts.

    Parameters
    ----------
    base : type
        What they all derive from.
    shipped : iterable of str
        The names of this package's classes.
    load : callable
        Takes one of these, and returns the class.
    complete : callable
        Takes a class, and says whether it is more than a base of others.
    ending : str
        What may be left out at the end of a name.
    group : str
        Of entry points; empty for none.
    """

    def __init__(
        self,
        base: type[Any],
        shipped: Iterable[str],
        load: Callable[[str], type[T]],
        complete: Callable[[type[T]], bool],
        ending: str = "",
        group: str = "",
    ) -> None:
        self._base = base
        self._shipped = sorted(set(shipped) - {base.__name__})
        self._load = load
        self._complete = complete
        self._ending = ending
        self._group = group

    def names(self) -> list[str]:
        """Return all names, for a message."""
        defined = [cls.__name__ for cls in self._defined()]
        return list(dict.fromkeys([*self._shipped, *defined, *entry_points.names(self._group)]))

    def find(self, name: str) -> type[T] | None:
        """Return the class of a name, in any case, or None. Imports no other distribution.

        Parameters
        ----------
        name : str
            A class in the same case is preferred.

        Returns
        -------
        type or None
            The class.
        """
        spellings: list[tuple[str, Callable[[str], str]]] = [(name, str), (name.lower(), str.lower)]
        spellings += [(f"{name}{self._ending}".lower(), str.lower)] if self._ending else []
        for wanted, spell in spellings:
            defined = [cls for cls in self._defined() if spell(cls.__name__) == wanted]
            shipped = [known for known in self._shipped if spell(known) == wanted]
            if len(defined) + len(shipped) > 1:
                own = [cls for cls in defined if not entry_points.provides(self._group, cls)]
                defined = own or ([] if shipped else defined)
            if defined:
                return defined[-1]
            if shipped:
                return self._load(shipped[0])
        return None

    def find_anywhere(self, name: str) -> type[T] | None:
        """Return what `find` does, or else what an entry point of that name leads to, which is imported.

        Parameters
        ----------
        name : str
            As for `find`.

        Returns
        -------
        type or None
            The class.

        Raises
        ------
        ImportError
            The entry point cannot be loaded.
        TypeError
            It leads to something else than a class of that name.
        ValueError
            Two distributions have one of that name.
        """
        found = self.find(name)
        return entry_points.load(self._group, name, self._is_one) if found is None else found

    def made(self, value: object) -> bool:
        """Whether a value is an instance of one of the classes."""
        return isinstance(value, self._base)

    def _is_one(self, value: Any) -> bool:
        return isinstance(value, type) and issubclass(value, self._base) and self._complete(value)

    def _defined(self) -> Iterator[type[T]]:
        """Yield the complete classes that are not this package's."""
        return (cls for cls in below(self._base) if self._complete(cls) and not _is_shipped(cls))


def _is_shipped(cls: type[Any]) -> bool:
    return f"{cls.__module__}.".startswith(PACKAGE)


def below(base: type[Any]) -> Iterator[type[Any]]:
    """Yield all classes that derive from one."""
    for cls in base.__subclasses__():
        yield cls
        yield from below(cls)
