"""Classes that other distributions register under the entry points of a group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .caller import PACKAGE
from .text import short

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def names(group: str) -> list[str]:
    """Return the names that are registered."""
    return [point.name for point in _points(group)]


def provides(group: str, cls: type[Any]) -> bool:
    """Whether a class is of a package that has entry points in the group; nothing is imported."""
    packages = {point.module.partition(".")[0] for point in _points(group)}
    return str(cls.__module__).partition(".")[0] in packages


def load(group: str, name: str, is_one: Callable[[Any], bool]) -> Any:
    """Import what a name stands for.

    Parameters
    ----------
    group : str
        The group.
    name : str
        A name in any case; one in the same case is preferred.
    is_one : callable
        Takes what was imported, and says whether it is a class of the right kind.

    Returns
    -------
    type or None
        The class; None if no distribution registers that name.

    Raises
    ------
    ImportError
        The import fails.
    TypeError
        It is no class of the right kind, or has another name than its entry point: text names classes.
    ValueError
        Two distributions register the name.
    """
    points = _points(group)
    same = [point for point in points if point.name == name]
    same = same or [point for point in points if point.name.lower() == name.lower()]
    if not same:
        return None
    if len({point.value for point in same}) > 1:
        raise ValueError(
            f"{short(name)} is registered by {' and by '.join(map(_described, same))}; import the class that you want "
            f"and call it, or uninstall one of these"
        )
    point = same[0]
    try:
        found = point.load()
    except Exception as error:
        raise ImportError(
            f"{short(name)} cannot be loaded from {_described(point)}: {type(error).__name__}: {error}. Repair, update "
            f"or uninstall that distribution"
        ) from error
    if not is_one(found) or found.__name__ != point.name:
        raise TypeError(
            f"{short(name)} is registered by {_described(point)} and is {short(found)}; wanted an optimizer's class of "
            f"the entry point's name. Update or uninstall that distribution"
        )
    return found


def _points(group: str) -> list[EntryPoint]:
    """Return the entry points of a group; a copy of this package inside another one has none."""
    if not group or PACKAGE != "xpopt.":
        return []
    from importlib.metadata import entry_points  # here, since it takes longer to import than this package

    return list(entry_points(group=group))


def _described(point: EntryPoint) -> str:
    of = point.dist
    distribution = f"{of.name} {of.version}" if of is not None else "an unknown distribution"
    return f"the distribution {distribution} (entry point {point.name} = {point.value})"
