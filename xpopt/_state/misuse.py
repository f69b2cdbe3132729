"""Calls that other libraries would take: an error says what the call is here."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Self

from .._settings.missing import Listed, NotHere
from .._settings.peers import hint
from .._settings.text import short
from .settings import documented_names

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


class Guided(Listed):
    """The part of an optimizer that other libraries' calls come to."""

    add_param_group = NotHere("it holds no parameters, and a new one begins with its first update")
    apply_gradients = NotHere("params = opt.update_all(params, grads) updates a model")
    get_config = NotHere("opt.hyperparameters shows the settings, and make_optimizer takes them")
    init = NotHere("the state of a parameter begins with its first update; it is in opt.cache")
    learning_rate = NotHere("opt.hyperparameters['lr'] shows the rate, opt.set_params({'lr': ...}) changes it")
    lr = NotHere("opt.hyperparameters['lr'] shows the rate, opt.set_params({'lr': ...}) changes it")
    minimize = NotHere("compute the gradients, then params = opt.update_all(params, grads)")
    param_groups = NotHere("it holds no parameters; opt.hyperparameters shows the settings, set_params changes them")
    zero_grad = NotHere("gradients are given to each update and none is kept")

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse parameters in the place of the learning rate, before Python says that there are two of these."""
        names = documented_names(cls)
        if args and names[:1] == ("lr",) and _are_parameters(args[0]):
            raise TypeError(
                f"{cls.__name__}: lr, the first argument, is a {type(args[0]).__name__}; wanted a number. An optimizer "
                f"holds no parameters here: opt = {cls.__name__}(lr=...), then params = opt.update_all(params, grads)"
            )
        if "scheduler" in kwargs and "lr_scheduler" in inspect.signature(cls.__init__).parameters:
            raise TypeError(f"{cls.__name__} takes no keyword 'scheduler'{hint('scheduler', names)}")
        return super().__new__(cls)


def _are_parameters(value: object) -> bool:
    """Whether `value` is a model or some of its parameters, and no learning rate that came in another form."""
    return hasattr(value, "parameters") or (isinstance(value, Iterable) and not isinstance(value, str | bytes))


def step_takes_nothing(opt: object, given: int) -> TypeError:
    """Return the error for a call of `step` with arguments."""
    return TypeError(
        f"{type(opt).__name__}.step() takes no arguments, and got {given}: it counts a step. Parameters are updated by "
        f"params = opt.update_all(params, grads), which counts the step too"
    )
