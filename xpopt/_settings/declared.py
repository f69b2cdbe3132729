"""Classes whose subclasses declare settings: what these may be, attributes and constructor follow."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, dataclass_transform

from .constructor import constructor, signature, take_settings, takes_settings
from .ranges import FLAG, Check, Range
from .setting import NONE, Guard, Setting, option, setting


class _Signature:
    """The attribute of a class from which `inspect.signature` takes it: few ask, so it is made then."""

    def __get__(self, instance: object, owner: type[Declared]) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("__signature__ is the class's")
        return signature(owner)


@dataclass_transform(eq_default=False, field_specifiers=(setting, option))
class Declared:
    """A class whose subclasses declare settings.

    Those of the class right below, the base of a family, are common to all. The family says what a constructor does
    with values, and what the attribute of a setting is.
    """

    ranges: ClassVar[Mapping[str, Check]] = {}
    """What each setting may be, but for those that are common to all, in the documented order."""

    __signature__: ClassVar[_Signature] = _Signature()

    _settings: ClassVar[Mapping[str, Setting]] = {}
    _common: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[Mapping[str, Any]] = {}
    _kind: ClassVar[str]
    """What the family calls itself in messages."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Take the declarations out of the class body and make of them what they say."""
        super().__init_subclass__(**keywords)
        inherited: dict[str, Setting] = {}
        ranges: dict[str, Check] = {}
        for base in reversed(cls.__mro__[1:]):
            inherited.update(vars(base).get("_settings", {}))
            ranges.update(vars(base).get("ranges", {}))
        own = dict(_declared_in(cls, inherited))
        taken = {name for name, one in own.items() if name in inherited and _is_taken(one, inherited[name])}
        cls._common = tuple(name for name in cls._common if name not in taken)
        for name in own:
            setattr(cls, name, cls._attribute(name))
        cls._settings = {**inherited, **own}
        cls._defaults = {name: one.default for name, one in cls._settings.items() if one.default is not NONE}
        if Declared in cls.__bases__:
            cls._common = tuple(own)
            take_settings(cls.__init__)
            return
        _guard_arguments(cls)
        ranges |= {name: one.allowed for name, one in own.items() if one.allowed and name not in cls._common}
        cls.ranges = {**ranges, **vars(cls).get("ranges", {})}
        if own and takes_settings(cls.__init__):
            cls.__init__ = constructor(cls)  # type: ignore[method-assign]

    @classmethod
    def _attribute(cls, name: str) -> Any:
        """Return the attribute of a setting."""
        return Guard(name)

    @classmethod
    def _checked(cls, name: str, value: object, owner: str) -> Any:
        """Return a value of a setting as it is to be kept, or raise an error that names `owner` and the setting."""
        return range_of(cls, name).check(owner, name, value)

    @staticmethod
    def _hint(name: str, known: tuple[str, ...], /) -> str:
        """Say what an unknown name was meant to be."""
        raise NotImplementedError

    @classmethod
    def _check_together(cls, values: Mapping[str, Any]) -> None:
        """Raise a ValueError if one of the values has no meaning beside another."""

    def _begin(self, given: dict[str, Any]) -> None:
        """Set up a new instance with the settings that its constructor was given, by name."""
        raise NotImplementedError


def _guard_arguments(cls: type[Declared]) -> None:
    """Make attributes of `ranges` that a class has in place of declarations, where its constructor names them."""
    body = vars(cls)
    if "ranges" in body and "__init__" in body:
        for name in list(inspect.signature(cls.__init__).parameters)[1:]:
            if name in body["ranges"] and not hasattr(cls, name):
                setattr(cls, name, cls._attribute(name))


def _declared_in(cls: type[Declared], inherited: Mapping[str, Setting]) -> Iterable[tuple[str, Setting]]:
    """Yield what a class body declares, or changes of what is declared in a base.

    Under the name of a setting, a plain value is another default. `ranges` may narrow one.
    """
    ranges = vars(cls).get("ranges", {})
    for name, value in list(vars(cls).items()):
        before = inherited.get(name)
        if isinstance(value, Setting):
            if before is None and hasattr(super(cls, cls), name):  # nothing of a `NotHere`
                raise TypeError(f"{cls.__name__} declares the setting {name!r}, which its base has as something else")
            yield name, _completed(value, before)
        elif before is not None and (value is None or isinstance(value, _PLAIN)):
            yield name, before._replace(default=value, allowed=ranges.get(name, before.allowed))
    for name, allowed in ranges.items():
        if name in inherited and name not in vars(cls):
            own = inherited[name]._replace(allowed=allowed)
            yield name, Setting(NONE, allowed, NONE, kw_only=True, option=False) if own.gives_way else own


_PLAIN = (bool, int, float, str, tuple, Declared)
"""What a default is that is given as a plain value in a class body."""


def _is_taken(declared: Setting, before: Setting) -> bool:
    """Whether a class has a setting of its own in place of an option of the base."""
    return before.gives_way and not declared.option


def _completed(declared: Setting, before: Setting | None) -> Setting:
    """Return a declaration with what it leaves to that of the base."""
    if before is not None and not _is_taken(declared, before):
        neutral = before.neutral if declared.neutral is NONE or declared.option else declared.neutral
        declared = declared._replace(
            neutral=neutral,
            option=before.option,
            gives_way=before.gives_way,
            allowed=declared.allowed or before.allowed,
        )
    if declared.allowed is None:
        declared = declared._replace(allowed=FLAG if isinstance(declared.default, bool) else Range())
    return declared


def range_of(cls: type[Declared], name: str) -> Check:
    """Return what a setting of a class may be."""
    allowed = cls._settings[name].allowed if name in cls._common else cls.ranges[name]
    assert allowed is not None
    return allowed
