"""Checks for those who write an optimizer."""

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
    everywhere: bool = False  # also for libraries that are not the first
    only: Collection[str] = MODULES


_PROMISES = (
    _Promise("determinism", "the same training has the same bits twice", _numbers.determinism),
    _Promise(
        "engines", "a rule that is read computes what it computes when it is called", _numbers.engines, only=["numpy"]
    ),
    _Promise(
        "dtypes", "results are of the dtype of their parameters, 16 bits computed in float32", _numbers.dtypes, True
    ),
    _Promise("shapes", "results have the shape of their parameters, whatever their layout in memory", _numbers.shapes),
    _Promise("one by one", "update for each parameter and a step are an update_all", _state.one_by_one),
    _Promise("inputs", "parameters and gradients are only read, and not kept", _state.inputs),
    _Promise(
        *("in place", "results in out are those in new arrays", _state.in_place),
        only=["numpy", "array_api_strict", "torch", "cupy"],
    ),
    _Promise("resume", "a training that was saved and loaded goes on with the same bits", _state.resume),
    _Promise("copies", "copies and pickles go on with the same bits", _state.copies),
    _Promise("text", "the text of an optimizer makes an equal one", _state.text),
    _Promise(
        "bad input",
        "what is no gradient is refused by a TypeError or ValueError, and changes nothing",
        _state.bad_input,
    ),
    _Promise(
        "as on NumPy", "results are NumPy's, but for roundings", _numbers.as_on_numpy, True, MODULES.keys() - {"numpy"}
    ),
    _Promise("no wait", "nothing waits for a value", _state.no_wait, True, ["dask", "jax"]),
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
    """Return the checks of an optimizer, to be run one by one.

    Parameters
    ----------
    optimizer : OptimizerBase or subclass
        A class is made with its defaults; an optimizer is copied for each training, and left as it is.
    oracle : callable, optional
        The formula once more, written from the paper: ``oracle(param, grad, memory, t, **settings)`` returns the new
        parameter and what it remembers, which is None at first. Arrays are NumPy's, of float64, one parameter at a
        time; `t` counts from 1. It gets those settings that it takes by name. Without one, no formula is checked.
    tolerance : float
        How far the optimizer may be from the oracle, after any of 12 steps, as a part of the largest element.
    shapes : mapping
        The shapes of the parameters, by name. By default a matrix, a vector, a number, and a matrix without elements.
    libraries : iterable of str, optional
        Of "numpy", "array_api_strict", "torch", "jax", "dask" and "cupy". On the first all checks run, on the others
        those in which libraries differ. By default all that are installed, which imports them.
    skip : collection of str
        Names of checks to leave out.

    Returns
    -------
    list of Check
        Called, each raises a `CheckError` where its promise is not kept. Its text is its name, with the library in
        front where that is not the first.

    Raises
    ------
    TypeError
        `optimizer` is none, or a class without a rule, or one that is not made without arguments.
    ValueError
        There is no such library or check, or no shape.

    Examples
    --------
    With pytest, a test for each:

    >>> from xpopt import Adam
    >>> from xpopt.testing import optimizer_checks
    >>> for check in optimizer_checks(Adam, libraries=["numpy"]):
    ...     check()
    """
    cls = optimizer if isinstance(optimizer, type) else type(optimizer)
    if not shapes:
        raise ValueError(f"shapes={shapes!r}; wanted one shape at least, such as {{'matrix': (3, 2)}}")
    if not issubclass(cls, OptimizerBase):
        raise TypeError(f"optimizer is a {cls.__name__}; wanted an optimizer, or its class")
    Subject(optimizer, Arrays("numpy"), shapes).make()  # what cannot be made is told at once
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
            yield Check("closed form", "every step is that of the oracle", run)
        for promise in _PROMISES:
            if name in promise.only and (place == 0 or promise.everywhere):
                label = promise.name if place == 0 else f"{name}: {promise.name}"
                yield Check(label, promise.text, partial(promise.run, subject))


def check_optimizer(optimizer: OptimizerBase | type[OptimizerBase], **options: Any) -> None:
    """Run all checks of an optimizer, and tell in one error which fail.

    Parameters
    ----------
    optimizer : OptimizerBase or subclass
        As for `optimizer_checks`.
    **options : object
        As for `optimizer_checks`.

    Raises
    ------
    CheckError
        A check fails; the message has all that do, and what each expected.
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
