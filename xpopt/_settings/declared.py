"""Settings declared once, in the body of a class: what they may be, the constructor and its signature follow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Never, dataclass_transform

from .ranges import FLAG, Check, Range
from .text import short

NONE: Any = object()
"""Stands for a default, or another value, that there is none of."""


class Setting(NamedTuple):
    """A setting as its class declares it."""

    default: Any
    allowed: Check | None  # None: what the setting of that name in the base may be
    neutral: Any
    kw_only: bool
    option: bool  # every class has it, rules do not read it, and text leaves it out at its default


def setting(
    *,
    default: Any = NONE,
    range: Check | None = None,  # noqa: A002 - the word of the field
    neutral: Any = NONE,
    kw_only: bool = False,
) -> Any:
    """Declare a setting in the body of an optimizer or a schedule.

    The constructor takes it, checks it and shows it in its signature; `hyperparameters`, text, `set_params`, copies and
    checkpoints have it. Type checkers read the declaration as that of a dataclass field.

    Parameters
    ----------
    default : object, optional
        What it is where none is given. Without it, one must be.
    range : Range, optional
        What it may be; or any object that has the method `check` of one. By default what it may be in the base class,
        for a new one any finite number, or True and False where that is the kind of the default.
    neutral : object, optional
        The value at which the formula is what it is without the setting. A checkpoint leaves it out at this value, and
        one that lacks it has this value.
    kw_only : bool
        Whether it is given by keyword alone. The others are also given by position, in the order of the declarations.

    Returns
    -------
    object
        What declares it; of any type for a type checker, so that the annotation states the type.

    Examples
    --------
    >>> import xpopt
    >>> class Damped(xpopt.OptimizerBase):
    ...     lr: float = setting(default=0.1)
    ...     damping: float = setting(default=0.5, range=xpopt.Range(low=0, high=1))
    ...
    ...     @staticmethod
    ...     def rule(xp, param, grad, s, h):
    ...         return param - h.lr * (1 - h.damping) * grad, s
    >>> Damped(damping=0.25)
    Damped(lr=0.1, damping=0.25, clip_norm=None, lr_scheduler=ConstantScheduler(lr=0.1))
    """
    return Setting(default, range, neutral, kw_only, option=False)


def option(*, default: Any, range: Check, kw_only: bool) -> Any:  # noqa: A002
    """Declare an option that every class below has: at its default, the formula is what it is without it."""
    return Setting(default, range, default, kw_only, option=True)


class Guard:
    """The attribute of a setting: read, it is what the instance holds under its name; only `set_params` changes it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set__(self, instance: object, value: object) -> Never:
        owner, name = type(instance).__name__, self.name
        if not vars(instance):
            raise AttributeError(f"{owner}.{name}: pass it on, super().__init__({name}={name})")
        raise AttributeError(f"{owner}.{name} is changed by set_params({{{name!r}: {short(value)}}})")


@dataclass_transform(eq_default=False, field_specifiers=(setting, option))
class Declared:
    """A class whose subclasses declare settings.

    Those of the class right below, the base of a family, are common to all. The family says what a constructor does
    with values, and what the attribute of a setting is.
    """

    ranges: ClassVar[Mapping[str, Check]] = {}
    """What each setting may be, but for those that are common to all, in the documented order."""

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
        for name in own:
            setattr(cls, name, cls._attribute(name))
        cls._settings = {**inherited, **own}
        cls._defaults = {name: one.default for name, one in cls._settings.items() if one.default is not NONE}
        if Declared in cls.__bases__:
            cls._common = tuple(own)
            _take_settings(cls.__init__)
            return
        _guard_arguments(cls)
        ranges |= {name: one.allowed for name, one in own.items() if one.allowed and name not in cls._common}
        cls.ranges = {**ranges, **vars(cls).get("ranges", {})}
        if own and takes_settings(cls.__init__):
            cls.__init__ = _constructor(cls)  # type: ignore[method-assign]

    @classmethod
    def _attribute(cls, name: str) -> Any:
        """Return the attribute of a setting."""
        return Guard(name)

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


def _take_settings(init: Any) -> None:
    init.takes_settings = True


def takes_settings(init: Any) -> bool:
    """Whether an ``__init__`` takes all settings of any class, as those do that are not the user's own."""
    return getattr(init, "takes_settings", False)


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
        elif before is not None and (value is None or isinstance(value, bool | int | float | str)):
            yield name, before._replace(default=value, allowed=ranges.get(name, before.allowed))
    for name, allowed in ranges.items():
        if name in inherited and name not in vars(cls):
            yield name, inherited[name]._replace(allowed=allowed)


def _completed(declared: Setting, before: Setting | None) -> Setting:
    """Return a declaration with what it leaves to that of the base."""
    if before is not None:
        neutral = before.neutral if declared.neutral is NONE else declared.neutral
        declared = declared._replace(neutral=neutral, option=before.option, allowed=declared.allowed or before.allowed)
    if declared.allowed is None:
        declared = declared._replace(allowed=FLAG if isinstance(declared.default, bool) else Range())
    return declared


def names(cls: type[Declared]) -> tuple[str, ...]:
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


def range_of(cls: type[Declared], name: str) -> Check:
    """Return what a setting of a class may be."""
    allowed = cls._settings[name].allowed if name in cls._common else cls.ranges[name]
    assert allowed is not None
    return allowed


def takes(cls: type[Declared], name: str) -> bool:
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


def _constructor(cls: type[Declared]) -> Callable[..., None]:
    """Return the `__init__` of a class that declares settings."""
    signature = _signature(cls)
    positional = tuple(p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD)[1:]

    def __init__(self: Declared, *args: Any, **given: Any) -> None:  # noqa: N807
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
    made.__signature__ = signature
    made.__module__, made.__qualname__ = cls.__module__, f"{cls.__qualname__}.__init__"
    _take_settings(made)
    return made


def _signature(cls: type[Declared]) -> inspect.Signature:
    """Return the signature of that constructor; the options, which every class has, are behind two stars in it."""
    # the other common settings are given by position too, after a class's own, unless one of these is not
    here = {name: one for name in names(cls) if (one := cls._settings.get(name)) and not one.option}
    all_by_position = not any(one.kw_only for name, one in here.items() if name not in cls._common)
    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for by_position in (True, False):
        for name, one in here.items():
            if by_position == (not one.kw_only or (name in cls._common and all_by_position)):
                kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if by_position else inspect.Parameter.KEYWORD_ONLY
                default = inspect.Parameter.empty if one.default is NONE else one.default
                parameters.append(inspect.Parameter(name, kind, default=default))
    if len(here) < len(cls._settings):
        parameters.append(inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD))
    try:
        return inspect.Signature(parameters)
    except ValueError as error:
        raise TypeError(f"{cls.__name__}: {error}; give it a default, or kw_only=True") from None
