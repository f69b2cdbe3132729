"""Calls that other libraries would take: an error says what the call is here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from .constructor import names
from .peers import hint
from .text import short

BOTH = "update(param, param_grad, param_name) updates one parameter, update_all(params, grads) a model"


class _Required:
    """Stands for an argument that was left out. It has no hash, so what looks a name up finds it out at no cost."""

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "required"


REQUIRED: Any = _Required()


def no_name(name: object) -> TypeError:
    """Return the error for what is given as a parameter's name and cannot be one."""
    problem = "is missing" if name is REQUIRED else f"{short(name)} cannot be hashed; use a string, number or tuple"
    return TypeError(f"param_name {problem}: {BOTH}")


def check_call(cls: type[Any], args: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Refuse parameters in the place of the learning rate, before Python says that there are two of these.

    Parameters
    ----------
    cls : type
        The optimizer's class.
    args, keywords
        What it is called with.

    Raises
    ------
    TypeError
        The first argument is a model or its parameters, or a keyword is one that only the base class takes.
    """
    if args and _are_parameters(args[0]) and _arguments(cls)[0] == "lr":
        raise TypeError(
            f"{cls.__name__}: lr, the first argument, is a {type(args[0]).__name__}; wanted a number. An optimizer "
            f"holds no parameters here: opt = {cls.__name__}(lr=...), then params = opt.update_all(params, grads)"
        )
    if "scheduler" in keywords and "lr_scheduler" in _arguments(cls):
        raise TypeError(f"{cls.__name__} takes no keyword 'scheduler'{hint('scheduler', names(cls))}")


def _arguments(cls: type[Any]) -> list[str]:
    """Return the names of a constructor's arguments, of which it has at least one."""
    return list(inspect.signature(cls).parameters) or [""]


def _are_parameters(value: object) -> bool:
    """Whether `value` is a model or some of its parameters, and no learning rate that came in another form."""
    return hasattr(value, "parameters") or (isinstance(value, Iterable) and not isinstance(value, str | bytes))


def step_takes_nothing(opt: object, given: int) -> TypeError:
    """Return the error for a call of `step` with arguments."""
    return TypeError(
        f"{type(opt).__name__}.step() takes no arguments, and got {given}: it counts a step. Parameters are updated by "
        f"params = opt.update_all(params, grads), which counts the step too"
    )
