"""Settings that make a value: it is never changed, equals another one with the same settings, and is text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Never

from .declared import Declared
from .registry import Registry
from .setting import Guard
from .suggest import suggest
from .text import Call, format_call, naming, parse, short
from .values import check_values, complete


class _Fixed(Guard):
    """The attribute of a setting."""

    def __set__(self, instance: object, value: object) -> Never:
        owner, name = type(instance).__name__, self.name
        raise AttributeError(
            f"{owner}.{name} cannot be changed to {short(value)}: it is a value; make another one, "
            f"{owner}({name}={short(value)})"
        )


class Value(Declared):
    """Base of classes whose instances are their settings and nothing else.

    Parameters
    ----------
    **settings : object
        The settings of the class.

    Raises
    ------
    TypeError, ValueError
        An unknown keyword, or a value of the wrong type or out of its range.
    """

    _kind = "value"

    @staticmethod
    def _hint(name: str, known: tuple[str, ...], /) -> str:
        return suggest(name, known)

    @classmethod
    def _attribute(cls, name: str) -> Any:
        return _Fixed(name)

    def __init__(self, **settings: Any) -> None:
        self._begin(settings)

    def _begin(self, given: dict[str, Any]) -> None:
        cls = type(self)
        values = check_values(cls, complete(cls, given))
        cls._check_together(values)
        vars(self).update({name: values[name] for name in cls.ranges})

    def settings(self) -> dict[str, Any]:
        """Return the settings by name."""
        return {name: vars(self)[name] for name in type(self).ranges}

    def __repr__(self) -> str:
        """Write the call that makes it, without settings apart, of which there is nothing at their defaults."""
        declared = type(self)._settings
        shown = {
            name: value
            for name, value in self.settings().items()
            if not (name in declared and declared[name].apart and value == declared[name].default)
        }
        return format_call(type(self).__name__, shown)

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same class, with the same settings."""
        return type(other) is type(self) and self.settings() == other.settings()

    def __hash__(self) -> int:
        """Hash class and settings."""
        return hash((type(self), tuple(self.settings().items())))


def make_value(spec: Any, known: Registry[Any], what: str) -> Any:
    """Make a value from what describes it.

    Parameters
    ----------
    spec : str, mapping, Call or Value
        A name, a call such as ``"armijo(decrease=0.1)"``, or a dict with ``"id"``; a value is returned as it is.
    known : Registry
        The classes.
    what : str
        What they are called, for messages.

    Returns
    -------
    Value
        The value.

    Raises
    ------
    TypeError
        `spec` is none of the above.
    ValueError
        A name or keyword is unknown, or a value out of range.
    """
    if known.made(spec):
        return spec
    if isinstance(spec, str | Mapping):
        spec = parse(spec)
    if not isinstance(spec, Call):
        way_out = f"; call it, {spec.__name__}()" if isinstance(spec, type) else ""
        raise TypeError(
            f"{short(spec)} is not a {what}; wanted one of {', '.join(known.names())}, or its name{way_out}"
        )
    kind = known.find(spec.name)
    if kind is None:
        raise spec.error(f"unknown {what} {short(spec.name)}{suggest(spec.name, known.names())}")
    for keyword in spec.keywords:
        if keyword not in kind.ranges:
            raise spec.error(f"{kind.__name__} has no keyword {short(keyword)}{suggest(keyword, kind.ranges)}", keyword)
    return kind(**spec.keywords)


@dataclass(frozen=True)
class OneOf:
    """A value of one of some classes, or what describes one.

    Parameters
    ----------
    known : Registry
        The classes.
    what : str
        What they are called, for messages.
    """

    known: Registry[Any]
    what: str

    def check(self, owner: str, name: str, value: object) -> Any:
        """Return the value, or say what is wrong with what came.

        Parameters
        ----------
        owner, name : str
            The class and the keyword, for the message.
        value : object
            What came.

        Returns
        -------
        Value
            What is to be kept.

        Raises
        ------
        TypeError, ValueError
            It is none.
        """
        with naming(f"{owner}: {name}"):
            return make_value(value, self.known, self.what)
