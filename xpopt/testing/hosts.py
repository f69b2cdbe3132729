"""Checks of a library that uses optimizers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from . import _driven
from ._driven import Driven
from .checks import Check, chosen, run_all

__all__ = ["check_host", "host_checks"]

_PROMISES = {
    "numbers": ("steps are those of the optimizer without the library", _driven.numbers),
    "names": ("each parameter has its own name and its own state", _driven.names),
    "steps": ("each step of the model is one step of the optimizer", _driven.steps),
    "losses": ("the loss is passed on", _driven.losses),
    "inputs": ("gradients are only read", _driven.inputs),
    "dtypes": ("parameters keep dtype and shape", _driven.dtypes),
    "resume": ("all state is in the optimizer, so that a copy of it continues the training", _driven.resume),
    "two models": ("two models with two optimizers do not affect each other", _driven.apart),
    "errors": ("an error of the optimizer is raised, and leaves everything unchanged", _driven.errors),
}


def host_checks(
    update: Callable[..., Any], *, loss: bool = False, tolerance: float = 1e-12, skip: Collection[str] = ()
) -> list[Check]:
    """Return the checks of a library that uses optimizers, to run one by one.

    Parameters
    ----------
    update : callable
        A function that makes one step of the library, ``update(optimizer, params, grads)``. `params` and `grads` are
        dicts of NumPy arrays with the names "W", "V" and "b", or only "W". It puts them into a model of the library,
        lets the model use the optimizer, and returns the new parameters as such a dict. Parameters may be written in
        place. All steps of a model get the same optimizer object, so that a function for a library that copies the
        optimizer can find the model.
    loss : bool
        Whether `update` takes the loss, a float, as a fourth argument, and the library passes it to the optimizer.
    tolerance : float
        The largest difference to steps of the optimizer without the library, relative to the largest element.
    skip : collection of str
        Names of checks to skip. Skip "errors" for a library that calls `OptimizerBase.update` for one parameter after
        the other, since some are updated before an error occurs. Skip "resume" for a library that copies the optimizer.

    Returns
    -------
    list of Check
        A call of a check raises a `CheckError` if its promise is not kept.

    Raises
    ------
    TypeError
        `update` is not callable.
    ValueError
        `skip` has a name that no check has.

    Examples
    --------
    >>> from xpopt.testing import host_checks
    >>> def update(optimizer, params, grads):
    ...     return optimizer.update_all(params, grads, out=params)
    >>> [str(check) for check in host_checks(update)]
    ['numbers', 'names', 'steps', 'inputs', 'dtypes', 'resume', 'two models', 'errors']
    """
    if not callable(update):
        raise TypeError(
            f"update is a {type(update).__name__}; wanted a function with the arguments optimizer, params and grads"
        )
    host = Driven(update, loss=loss, tolerance=tolerance)
    checks = (Check(name, promise, partial(run, host)) for name, (promise, run) in _PROMISES.items())
    return chosen((check for check in checks if loss or check.name != "losses"), skip)


def check_host(update: Callable[..., Any], **options: Any) -> None:
    """Run all checks of a library that uses optimizers, and raise one error that lists the failures.

    Parameters
    ----------
    update : callable
        As for `host_checks`.
    **options : object
        As for `host_checks`.

    Raises
    ------
    CheckError
        At least one check fails; the message lists them, with what each expected.
    TypeError, ValueError
        As for `host_checks`.

    Examples
    --------
    A library that gives all weights the name W:

    >>> from xpopt.testing import check_host
    >>> def update(optimizer, params, grads):
    ...     new = {name: optimizer.update(x, grads[name], "W") for name, x in params.items()}
    ...     optimizer.step()
    ...     return new
    >>> check_host(update, skip=["errors"])
    Traceback (most recent call last):
        ...
    xpopt.testing.checks.CheckError: update fails 6 of 7 checks:
    - names: expected that each parameter has its own name and its own state. ...
    """
    run_all(host_checks(update, **options), getattr(update, "__name__", type(update).__name__))
