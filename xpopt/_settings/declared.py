"""Hyperparameters: checked when they come, read-only when they are shown."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from .once import once_for
from .peers import hint
from .ranges import FLAG, NON_NEGATIVE, POSITIVE, Check, Choice, Range
from .text import short


class Option(NamedTuple):
    """A keyword that every optimizer takes beside its hyperparameters."""

    default: Any
    allowed: Check


OPTIONS = {
    "nonfinite": Option("propagate", Choice(("propagate", "skip", "raise"))),
    "master": Option(False, FLAG),
    "rounding": Option("nearest", Choice(("nearest", "stochastic"))),
    "seed": Option(0, Range(low=0, kind="int")),
}


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
    return {"clip_norm": None, **{name: option.default for name, option in OPTIONS.items()}, **cls.neutral}


class Hyperparameters(dict[str, Any]):
    """The settings of an optimizer as a dict to read; it copies and pickles as a plain dict."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("hyperparameters are read-only here; change them with set_params({'lr': 0.1})")

    __setitem__ = __delitem__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def copy(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    def __copy__(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return a plain dict; the values are immutable."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a plain dict."""
        return dict, (dict(self),)


def documented_names(cls: type[Any]) -> tuple[str, ...]:
    """Return the keywords of a class's ``__init__`` in documented order."""
    try:
        names: tuple[str, ...] = cls.__dict__["_documented_names"]
    except KeyError:
        names = once_for(cls, "_documented_names", lambda: _documented_names(cls))
    return names


def _documented_names(cls: type[Any]) -> tuple[str, ...]:
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    names = ["lr_scheduler" if name == "scheduler" else name for name in names]
    if len(names) < len(parameters):  # others are handed on to the base with the rest
        names += ["clip_norm", *OPTIONS]
    return tuple(dict.fromkeys(names))


def check_id(cls: type[Any], name: object) -> None:
    """Raise a ValueError unless `name` is that of the class."""
    if name != cls.__name__:
        raise ValueError(f"id={short(name)} names another optimizer; this is {cls.__name__}. make_optimizer takes any")


def check_names(cls: type[Any], values: dict[str, Any]) -> None:
    """Check which keywords the constructor was given, and take out ``"id"``.

    Parameters
    ----------
    cls : type
        The optimizer's class, with its declared `ranges`.
    values : dict
        The keywords.

    Raises
    ------
    TypeError
        A name is unknown, or `ranges` declares one that every optimizer has.
    ValueError
        ``"id"`` is the name of another class.
    """
    check_id(cls, values.pop("id", cls.__name__))
    for name in values:
        if name in OPTIONS and name in cls.ranges:
            raise TypeError(f"{cls.__name__}.ranges declares {name!r}, which every optimizer has; use another name")
        if name not in ("lr", "clip_norm", *OPTIONS, *cls.ranges):
            raise TypeError(f"{cls.__name__} takes no keyword {short(name)}{hint(name, documented_names(cls))}")


def check_values(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters as Python's own numbers, truth values and strings.

    Parameters
    ----------
    cls : type
        The optimizer's class, with its declared `ranges`.
    values : mapping
        ``lr``, ``clip_norm`` (which may be None), `OPTIONS`, and what `ranges` declares.

    Returns
    -------
    dict
        The same names.

    Raises
    ------
    TypeError, ValueError
        A value that is no number, or out of its range.
    """
    allowed = {name: option.allowed for name, option in OPTIONS.items()}
    ranges = {**cls.ranges, "lr": NON_NEGATIVE, "clip_norm": POSITIVE, **allowed}
    return {
        name: None if value is None and name == "clip_norm" else _checked(cls, name, value, ranges[name])
        for name, value in values.items()
    }


def _checked(cls: type[Any], name: str, value: Any, allowed: Check) -> Any:
    try:
        return allowed.check(cls.__name__, name, value)
    except TypeError as error:
        if name == "lr" and (callable(value) or isinstance(value, Mapping)):
            raise TypeError(f"{error}. A schedule is given as lr_scheduler") from None
        raise


def check_together(cls: type[Any], values: Mapping[str, Any]) -> None:
    """Raise a ValueError if one of the values has no meaning beside another."""
    if values["master"] and values["rounding"] == "stochastic":
        raise ValueError(
            f"{cls.__name__}: master=True and rounding='stochastic' do not go together: a master copy loses nothing "
            f"by rounding; choose one of them"
        )


def changed_values(cls: type[Any], values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` after `changes`, of which ``lr_scheduler`` is left to others.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    values, changes : mapping
        Hyperparameters as they are, and those that are to change.

    Returns
    -------
    dict
        The names of `values`.

    Raises
    ------
    KeyError
        A name that the optimizer does not have.
    TypeError, ValueError
        A value that is no number, or out of its range; another optimizer's ``id``.
    """
    mine = {}
    for name, value in changes.items():
        if name == "id":
            check_id(cls, value)
        elif name in values:
            mine[name] = value
        elif name != "lr_scheduler":
            raise KeyError(
                f"{cls.__name__} has no hyperparameter {short(name)}{hint(str(name), documented_names(cls))}"
            )
    changed = {**values, **check_values(cls, mine)}
    check_together(cls, changed)
    return changed
