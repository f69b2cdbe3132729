"""A setting, as the body of a class declares it."""

from __future__ import annotations

from typing import Any, NamedTuple, Never

from .ranges import Check
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
    gives_way: bool = False  # a class that declares a setting of this name has that in its place
    of_step: bool = False  # it is about all parameters of a step, and groups of them have none of their own

    @property
    def apart(self) -> bool:
        """Whether it is given by keyword alone and changes nothing at its default, as if it were not there."""
        return self.kw_only and self.neutral is not NONE and self.neutral == self.default


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
        What it may be; or any object that has the method `check` of one, and, if a schedule may stand for its numbers,
        an attribute `number`, the `Range` of these. By default what it may be in the base class,
        for a new one any finite number, or True and False where that is the kind of the default.
    neutral : object, optional
        The value at which the formula is what it is without the setting. A checkpoint leaves it out at this value, and
        one that lacks it has this value.
    kw_only : bool
        Whether it is given by keyword alone. The others are also given by position, in the order of the declarations.
        One whose default is neutral does not count in that order, and text leaves it out at its default.

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


def option(
    *,
    default: Any,
    range: Check | None = None,  # noqa: A002
    kw_only: bool,
    gives_way: bool = False,
    of_step: bool = False,
) -> Any:
    """Declare an option that every class below has, at its default without effect; in one of these, another default."""
    return Setting(default, range, default, kw_only, option=True, gives_way=gives_way, of_step=of_step)


class Guard:
    """The attribute of a setting: read, it is what the instance holds under its name; only `set_params` changes it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __set__(self, instance: object, value: object) -> Never:
        owner, name = type(instance).__name__, self.name
        raise AttributeError(
            f"{owner}.{name} is changed by set_params({{{name!r}: {short(value)}}}); "
            f"a constructor passes it on, super().__init__({name}={name})"
        )
