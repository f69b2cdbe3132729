"""The constructor of a class that declares settings, made of the declarations."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from types import MethodType
from typing import Any


def names(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of a class's settings in the documented order: those that are common to all come last.

    Parameters
    ----------
    cls : type
        The class.

    Returns
    -------
    tuple of str
        A common one that is given by position, such as ``lr``, comes first.
    """
    first = [name for name in cls._common if not cls._settings[name].kw_only]
    return tuple(dict.fromkeys([*first, *cls.ranges, *cls._common]))


def takes(cls: type[Any], name: str) -> bool:
    """Whether a class's constructor takes a setting; else `set_params` does.

    Parameters
    ----------
    cls : type
        The class; its constructor may be one of the user's own, which passes on what it is not about.
    name : str
        The setting, or another keyword.

    Returns
    -------
    bool
        True for a keyword that it names; and, if it passes on others, for what every class has or what must be given.
    """
    if takes_settings(cls.__init__):
        return name in cls._settings or name in cls.ranges
    parameters = inspect.signature(cls).parameters
    if name in parameters:
        return True
    passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    must_be_given = name in cls._settings and name not in cls._defaults
    return passes_on and (name in cls._common or must_be_given)


def by_position(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of the settings that a constructor takes by position, in this order."""
    # type checkers take the last of them, which are common to all, by keyword alone; here a class's own come first
    known = {name: one for name in names(cls) if (one := cls._settings.get(name)) and not one.option}
    all_are = not any(one.kw_only and not one.apart for name, one in known.items() if name not in cls._common)
    return tuple(name for name, one in known.items() if not one.kw_only or (all_are and name in cls._common))


def constructor(cls: type[Any]) -> Callable[..., None]:
    """Return the `__init__` of a class that declares settings."""
    positional = by_position(cls)
    for before, name in itertools.pairwise(positional):
        if before in cls._defaults and name not in cls._defaults:
            raise TypeError(f"{cls.__name__}: {name} has no default and {before} has; give it one, or kw_only=True")

    def __init__(self: Any, *args: Any, **given: Any) -> None:  # noqa: N807
        if args:
            if len(args) > len(positional):
                raise TypeError(
                    f"{type(self).__name__} takes {len(positional)} settings by position, {', '.join(positional)}, and "
                    f"got {len(args)}; give others by keyword"
                )
            for name, value in zip(positional, args):  # noqa: B905 - the others have defaults
                if name in given:
                    raise TypeError(f"{type(self).__name__} got {name!r} by position and by keyword; give it once")
                given[name] = value
        self._begin(given)

    made: Any = __init__
    made.made_for = cls
    made.__module__, made.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    take_settings(made)
    return made


def signature(cls: type[Any]) -> inspect.Signature:
    """Return the signature of a class; the options, which every class has, are behind two stars in it."""
    maker = getattr(cls.__init__, "made_for", None)
    if maker is None:
        return inspect.signature(MethodType(cls.__init__, cls))
    declared, positional = maker._settings, by_position(maker)
    shown = [name for name in names(maker) if name in declared and not declared[name].option]
    parameters = []
    for name in (*positional, *(name for name in shown if name not in positional)):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if name in positional else inspect.Parameter.KEYWORD_ONLY
        default = maker._defaults.get(name, inspect.Parameter.empty)
        parameters.append(inspect.Parameter(name, kind, default=default))
    if len(shown) < len(declared):
        parameters.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def take_settings(init: Any) -> None:
    """Note that an ``__init__`` takes all settings of any class."""
    init.takes_settings = True


def takes_settings(init: Any) -> bool:
    """Whether an ``__init__`` takes all settings of any class, as those do that are not the user's own."""
    return getattr(init, "takes_settings", False)
