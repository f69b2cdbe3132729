"""Checks of an optimizer that you write."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from ..optimizers.base import OptimizerBase
from . import _numbers, _state
from ._arrays import MODULES, Arrays, Shapes, installed
from ._subject import SHAPES, Subject
from .checks import Check, chosen, run_all

__all__ = ["check_optimizer", "optimizer_checks"]


class _Promise(NamedTuple):
    name: str
    text: str
    run: Callable[[Subject], None]
    everywhere: bool = False  # also on libraries that are not the first
    only: Collection[str] = MODULES


_PROMISES = (
    _Promise("determinism", "two runs of the same training have the same bits", _numbers.determinism),
    _Promise(
        "engines",
        "the engines that trace the rule compute what a call of it computes",
        _numbers.engines,
        only=["numpy"],
    ),
    _Promise(
        "dtypes",
        "results have the dtype of their parameters, and 16 bits are computed in float32",
        _numbers.dtypes,
        True,
    ),
    _Promise("shapes", "results have the shape of their parameters, in any memory layout", _numbers.shapes),
    _Promise("one by one", "update for each parameter, and step, give the result of update_all", _state.one_by_one),
    _Promise("inputs", "parameters and gradients are only read, and no reference is kept", _state.inputs),
    _Promise(
        *("in place", "results written to out equal those in new arrays", _state.in_place),
        only=["numpy", "array_api_strict", "torch", "cupy"],
    ),
    _Promise("resume", "a training that is saved and loaded continues with the same bits", _state.resume),
    _Promise("copies", "copies and pickles continue with the same bits", _state.copies),
    _Promise("text", "the text of an optimizer makes an equal one", _state.text),
    _Promise(
        "bad input",
        "an invalid gradient raises a TypeError or ValueError, and nothing changes",
        _state.bad_input,
    ),
    _Promise(
        "as on NumPy", "results equal NumPy's up to rounding", _numbers.as_on_numpy, True, MODULES.keys() - {"numpy"}
    ),
    _Promise("no wait", "an update never waits for a value", _state.no_wait, True, ["dask", "jax"]),
)


def optimizer_checks(
    optimizer: OptimizerBase | type[OptimizerBase],
    *,
    oracle: Callable[..., Any] | None = None,
    tolerance: float = 1e-12,
    shapes: Shapes = SHAPES,
    libraries: Iterable[str] | None = None,
    skip: Collection[str] = (),
) -> list[Check]:
    """Return the checks of an optimizer, to run one by one.

    Parameters
    ----------
    optimizer : OptimizerBase or subclass
        The optimizer, or its class, of which an instance is made with the defaults. It is copied, and not changed.
    oracle : callable, optional
        An independent implementation of the formula: ``oracle(param, grad, memory, t, **settings)`` returns the new
        parameter and the new memory, an object of any kind, which is None in the first step. Arrays are NumPy's, in
        float64, one parameter at a time; `t` counts from 1. It gets the settings that its signature names. Without an
        oracle, the formula is not checked.
    tolerance : float
        The largest difference to the oracle after any of 12 steps, relative to the largest element.
    shapes : mapping
        The shapes of the parameters, by name. By default a matrix, a vector, an array of shape (), and an empty matrix.
    libraries : iterable of str, optional
        Names among "numpy", "array_api_strict", "torch", "jax", "dask" and "cupy". All checks run on the first library;
        on the others, only those in which libraries differ. By default, all that are installed; they are imported.
    skip : collection of str
        Names of checks to skip.

    Returns
    -------
    list of Check
        A call of a check raises a `CheckError` if its promise is not kept. `str` gives its name, which begins with the
        library if that is not the first.

    Raises
    ------
    TypeError
        `optimizer` is not an optimizer, or a class without a rule, or a class that requires arguments.
    ValueError
        A library or a check is unknown, or `shapes` is empty.

    Examples
    --------
    Run each check:

    >>> from xpopt import Adam
    >>> from xpopt.testing import optimizer_checks
    >>> for check in optimizer_checks(Adam, libraries=["numpy"]):
    ...     check()
    """
    cls = optimizer if isinstance(optimizer, type) else type(optimizer)
    if not shapes:
        raise ValueError(f"shapes={shapes!r}; wanted at least one shape, such as {{'matrix': (3, 2)}}")
    if not issubclass(cls, OptimizerBase):
        raise TypeError(f"optimizer is a {cls.__name__}; wanted an optimizer, or its class")
    Subject(optimizer, Arrays("numpy"), shapes).make()  # raises early if it cannot be made
    names = [name for name in MODULES if installed(name)] if libraries is None else list(libraries)
    unknown = [name for name in names if name not in MODULES]
    if unknown or not names:
        raise ValueError(f"libraries={names!r}; wanted some of {', '.join(MODULES)}")
    return chosen(_checks(optimizer, oracle, tolerance, shapes, names), skip)


def _checks(optimizer: Any, oracle: Any, tolerance: float, shapes: Shapes, names: list[str]) -> Iterator[Check]:
    for place, name in enumerate(names):
        subject = Subject(optimizer, Arrays(name), shapes)
        if place == 0 and oracle is not None:
            run = partial(_numbers.closed_form, subject, oracle, tolerance)
            yield Check("closed form", "every step equals that of the oracle", run)
        for promise in _PROMISES:
            if name in promise.only and (place == 0 or promise.everywhere):
                label = promise.name if place == 0 else f"{name}: {promise.name}"
                yield Check(label, promise.text, partial(promise.run, subject))


def check_optimizer(optimizer: OptimizerBase | type[OptimizerBase], **options: Any) -> None:
    """Run all checks of an optimizer, and raise one error that lists the failures.

    Parameters
    ----------
    optimizer : OptimizerBase or subclass
        As for `optimizer_checks`.
    **options : object
        As for `optimizer_checks`.

    Raises
    ------
    CheckError
        At least one check fails; the message lists them, with what each expected.
    TypeError, ValueError
        As for `optimizer_checks`.

    Examples
    --------
    >>> from xpopt import SGD
    >>> from xpopt.testing import check_optimizer
    >>> def momentum(param, grad, memory, t, lr, momentum):
    ...     velocity = momentum * (0 if memory is None else memory) + lr * grad
    ...     return param - velocity, velocity
    >>> check_optimizer(SGD(momentum=0.9), oracle=momentum, libraries=["numpy"])
    """
    name = optimizer.__name__ if isinstance(optimizer, type) else str(optimizer)
    run_all(optimizer_checks(optimizer, **options), name)
