"""The values of settings: checked when they come, read-only when they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from .constructor import names
from .declared import Declared
from .ranges import Companion
from .setting import NONE
from .text import short


class Hyperparameters(dict[str, Any]):
    """The settings of an optimizer as a dict to read; it copies and pickles as a plain dict."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("hyperparameters are read-only here; change them with set_params({'lr': 0.1})")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def copy(self) -> dict[str, Any]:
        """Return a plain dict, and so for the dicts in it; the other values are immutable."""
        return {key: value.copy() if isinstance(value, Hyperparameters) else value for key, value in self.items()}

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return `copy`."""
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain dict."""
        return dict, (self.copy(),)


def neutral_values(cls: type[Any]) -> dict[str, Any]:
    """Return the settings that a checkpoint leaves out, at the values that leave the formula as it is without them.

    So a checkpoint that is older than one of these settings can be read.

    Parameters
    ----------
    cls : type
        The optimizer's class.

    Returns
    -------
    dict
        The value by name.
    """
    declared = {name: one.neutral for name, one in cls._settings.items() if one.neutral is not NONE}
    return {**declared, **cls.neutral}


def complete(cls: type[Declared], given: dict[str, Any]) -> dict[str, Any]:
    """Return the values that a constructor was given, with defaults for the others, in no order.

    Parameters
    ----------
    cls : type
        The class.
    given : dict
        The values by name; ``"id"`` may be there if it is the name of the class.

    Returns
    -------
    dict
        A value for each declared setting.

    Raises
    ------
    TypeError
        A name is unknown, or a value is missing.
    ValueError
        ``"id"`` is the name of another class.
    """
    check_id(cls, given.pop("id", cls.__name__))
    for name in cls.ranges:
        if name in cls._common and cls._settings[name].option:
            raise TypeError(f"{cls.__name__}.ranges declares {name!r}, which every {cls._kind} has; use another name")
    for name in given:
        if name not in cls._settings and name not in cls.ranges:
            raise TypeError(f"{cls.__name__} takes no keyword {short(name)}{cls._hint(name, names(cls))}")
    values = {**cls._defaults, **given}
    for name in cls._settings:
        if name not in values:
            raise TypeError(f"{cls.__name__} needs {name}, which has no default")
    return values


def check_values(cls: type[Declared], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as Python's own numbers, truth values and strings.

    Parameters
    ----------
    cls : type
        The class that declares what they may be.
    values : mapping
        Some of its settings.

    Returns
    -------
    dict
        The same names.

    Raises
    ------
    TypeError, ValueError
        A value that is not a number, or out of its range.
    """
    owner, known = cls.__name__, cls._settings
    unset = {name for name, value in values.items() if (one := known.get(name)) and one.option and value is one.neutral}
    return {name: value if name in unset else cls._checked(name, value, owner) for name, value in values.items()}


def changed_values(cls: type[Declared], values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` after `changes`, of which those that are declared and not in `values` are left to others.

    Parameters
    ----------
    cls : type
        The class.
    values, changes : mapping
        Settings as they are, and those that are to change.

    Returns
    -------
    dict
        The names of `values`.

    Raises
    ------
    KeyError
        A name that the class does not have.
    TypeError, ValueError
        A value that is not a number, or out of its range; the ``id`` of another class.
    """
    mine = {}
    for name, value in changes.items():
        if name == "id":
            check_id(cls, value)
        elif name in values:
            mine[name] = value
        elif name not in cls._settings:
            raise KeyError(f"{cls.__name__} has no hyperparameter {short(name)}{cls._hint(str(name), names(cls))}")
    changed = {**values, **check_values(cls, mine)}
    cls._check_together(changed)
    return changed


def of_rules(cls: type[Declared], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that rules read: all but options."""
    declared = cls._settings
    return {name: value for name, value in values.items() if name not in declared or not declared[name].option}


def names_of_step(cls: type[Declared]) -> tuple[str, ...]:
    """Return the settings that are about all parameters of a step."""
    return tuple(name for name, one in cls._settings.items() if one.of_step or isinstance(one.allowed, Companion))


def shown(cls: type[Declared], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that text shows: all but options, and settings apart, at their default."""
    hidden = {
        name: one.default
        for name, one in cls._settings.items()
        if one.option or (one.apart and name not in cls._common)
    }
    return {name: value for name, value in values.items() if name not in hidden or value != hidden[name]}


def check_id(cls: type[Declared], name: object) -> None:
    """Raise a ValueError unless `name` is that of the class."""
    if name != cls.__name__:
        kind = cls._kind
        raise ValueError(f"id={short(name)} names another {kind}; this is {cls.__name__}. make_{kind} takes any")
