"""Checks for those whose library has a place for an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from . import _driven
from ._driven import Driven
from .checks import Check, chosen, run_all

__all__ = ["check_host", "host_checks"]

_PROMISES = {
    "numbers": ("steps are those of the optimizer alone", _driven.numbers),
    "names": ("each parameter has a name, and a state, of its own", _driven.names),
    "steps": ("each step of the model is one step of the optimizer", _driven.steps),
    "losses": ("the loss is passed on", _driven.losses),
    "inputs": ("gradients are only read", _driven.inputs),
    "dtypes": ("parameters keep dtype and shape", _driven.dtypes),
    "resume": ("all state is the optimizer's, so that a copy goes on", _driven.resume),
    "two models": ("two models with two optimizers do not meet", _driven.apart),
    "errors": ("an error of the optimizer is raised, and the step is as if it had not been tried", _driven.errors),
}


def host_checks(
    update: Callable[..., Any], *, loss: bool = False, tolerance: float = 1e-12, skip: Collection[str] = ()
) -> list[Check]:
    """Return the checks of a library that has a place for an optimizer, to be run one by one.

    Parameters
    ----------
    update : callable
        Makes one step of the library: ``update(optimizer, params, grads)`` gets an optimizer, and parameters and their
        gradients as dicts of NumPy arrays with the names "W", "V" and "b", or the first alone. It puts them into a
        model of the library, lets that use the optimizer, and returns the new parameters as such a dict. Parameters
        may be written in place. At all steps of one model the optimizer is the same object, by which a library that
        copies it may find its own.
    loss : bool
        Whether it takes the loss as a fourth argument, a float, and the library passes it on.
    tolerance : float
        How far numbers may be from those of the optimizer alone, as a part of the largest element.
    skip : collection of str
        Names of checks to leave out. "errors" is for libraries that update the whole model in one call; one that calls
        `OptimizerBase.update` for one parameter after the other has updated some when it meets an error. "resume" is
        for libraries that use the optimizer that they are given, and no copy.

    Returns
    -------
    list of Check
        Called, each raises a `CheckError` where its promise is not kept.

    Raises
    ------
    TypeError
        `update` cannot be called.
    ValueError
        There is no such check.

    Examples
    --------
    >>> from xpopt.testing import host_checks
    >>> def update(optimizer, params, grads):
    ...     return optimizer.update_all(params, grads, out=params)
    >>> [str(check) for check in host_checks(update)]
    ['numbers', 'names', 'steps', 'inputs', 'dtypes', 'resume', 'two models', 'errors']
    """
    if not callable(update):
        raise TypeError(f"update is a {type(update).__name__}; wanted a function of optimizer, params and grads")
    host = Driven(update, loss=loss, tolerance=tolerance)
    checks = (Check(name, promise, partial(run, host)) for name, (promise, run) in _PROMISES.items())
    return chosen((check for check in checks if loss or check.name != "losses"), skip)


def check_host(update: Callable[..., Any], **options: Any) -> None:
    """Run all checks of a library that has a place for an optimizer, and tell in one error which fail.

    Parameters
    ----------
    update : callable
        As for `host_checks`.
    **options : object
        As for `host_checks`.

    Raises
    ------
    CheckError
        A check fails; the message has all that do, and what each expected.
    TypeError, ValueError
        As for `host_checks`.

    Examples
    --------
    A library that calls all its weights W:

    >>> from xpopt.testing import check_host
    >>> def update(optimizer, params, grads):
    ...     new = {name: optimizer.update(x, grads[name], "W") for name, x in params.items()}
    ...     optimizer.step()
    ...     return new
    >>> check_host(update, skip=["errors"])
    Traceback (most recent call last):
        ...
    xpopt.testing.checks.CheckError: update fails 6 of 7 checks:
    - names: expected that each parameter has a name, and a state, of its own. ...
    """
    run_all(host_checks(update, **options), getattr(update, "__name__", type(update).__name__))
