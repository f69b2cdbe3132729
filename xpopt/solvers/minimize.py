"""Minimization in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .. import stop as rules
from .._settings.suggest import suggest
from .._settings.text import parse, short
from .._settings.value import make_value
from .._solvers.model import Model
from .._solvers.result import Result
from .._solvers.solver import Solver
from ..config import make_optimizer
from ..optimizers.base import OPTIMIZERS, OptimizerBase
from ._box import box_of
from ._method import METHODS, Method
from ._vectors import Space


def minimize(
    fun: Callable[[Any], Any],
    params: Any,
    optimizer: str | Mapping[str, Any] | Method | OptimizerBase = "LBFGS",
    *,
    grad: Callable[[Any], Any] | None = None,
    steps: int | None = None,
    stop: rules.StopRule | Callable[[Mapping[str, Any]], Any] | None = None,
    bounds: tuple[Any, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    progress: bool = False,
) -> Result:
    """Minimize a function of parameters.

    Parameters
    ----------
    fun : callable
        ``fun(params) -> (value, grads)``: a number, or an array of shape (), and a tree like `params`. With `grad`,
        only the value.
    params : tree of array, or array
        The start: a container, nested to any depth, of arrays of one library; or one array. Only read.
    optimizer : str, mapping, Method or OptimizerBase
        The method: `LBFGS`, `NonlinearCG`, `GradientDescent`, or an optimizer, which is copied; or its name, or text
        such as ``"Adam(lr=0.1)"``.
    grad : callable, optional
        ``grad(params) -> grads``.
    steps : int, optional
        The largest number of steps.
    stop : StopRule or callable, optional
        When to stop. Without it and without `steps`: where no element of the gradient is larger than 1e-5, or after
        10,000 steps; of optimizers also where 100 steps gain less than 1e-9, times the best value where that is larger
        than 1.
    bounds : tuple, optional
        The lower and the upper bound. For methods, each is a number, an array or a tree like `params`; for an optimizer
        it is its option of that name.
    callback : callable, optional
        Called at the start and after each step with a dict: ``"params"``, the point that was accepted, and ``"step"``,
        ``"value"``, ``"gradient_norm"``, ``"rate"``, ``"evaluations"``, ``"best_value"`` and ``"seconds"``.
    progress : bool
        Whether to show the progress: with rich if that is installed, else in a line on stderr.

    Returns
    -------
    Result
        ``params`` of the best value, ``value``, ``reason``, ``step``, ``evaluations``, ``history``, and the method
        ``plot``. If Ctrl-C interrupts the loop, the KeyboardInterrupt has the result so far as its attribute
        ``result``.

    Raises
    ------
    TypeError, ValueError
        `fun` did not return a pair of a scalar and gradients like `params`; the value rises along the negative
        gradient; bounds are crossed, exclude the start, or are passed to a method that has none; or an argument is of
        the wrong type.

    See Also
    --------
    Solver : The same, with the loop in the hands of the caller.

    Notes
    -----
    For a complex parameter, the gradient is the direction of steepest ascent, as in PyTorch. JAX returns the conjugate.
    If a value or gradient is not finite, the step is rejected: methods try a shorter one, optimizers keep parameters
    and state, and ask again; ten in a row stop the solver.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> def rosenbrock(x):
    ...     r = x[1] - x[0] ** 2
    ...     return 100 * r**2 + (1 - x[0]) ** 2, np.array([-400 * x[0] * r - 2 * (1 - x[0]), 200 * r])
    >>> found = xpopt.minimize(rosenbrock, np.array([-1.2, 1.0]))
    >>> found.params.round(6), found.value < 1e-10
    (array([1., 1.]), True)
    """
    solver = solver_of(optimizer, params, _rule(steps, stop), bounds)
    return solver.run(fun, grad, callback=callback, progress=progress)


def solver_of(optimizer: Any, params: Any, stop: rules.StopRule | None, bounds: Any) -> Solver:
    """Return the solver of a method or an optimizer, or of what describes one.

    Parameters
    ----------
    optimizer : str, mapping, Method or OptimizerBase
        As for `minimize`.
    params : tree of array, or array
        Where to start.
    stop : StopRule or None
        When to stop.
    bounds : tuple or None
        As for `minimize`.

    Returns
    -------
    Solver
        At the start.
    """
    method = _method(optimizer)
    if isinstance(method, Method):
        return method.solver(params, stop, bounds=bounds)
    if bounds is None:
        return method.solver(params, stop)
    method = method.copy()
    method.set_params({"bounds": bounds})
    solver = method.solver(params, stop)
    if isinstance(bounds, tuple | list):
        model = Model(params)
        first = model.start()
        space = Space(model, first[0])
        box_of(space, model, type(method).__name__, bounds, space.guard(lambda _: space.flat(first))(first[0]))
    return solver


def _method(spec: Any) -> Method | OptimizerBase:
    if isinstance(spec, Method | OptimizerBase):
        return spec
    if isinstance(spec, str | Mapping):
        call = parse(spec)
        if METHODS.find(call.name) is not None:
            method: Method = make_value(call, METHODS, "method")
            return method
        if OPTIMIZERS.find_anywhere(call.name) is None:
            known = [*METHODS.names(), *OPTIMIZERS.names()]
            raise call.error(f"unknown method or optimizer {short(call.name)}{suggest(call.name, known)}")
        return make_optimizer(spec)
    way_out = f"; call it, {spec.__name__}()" if isinstance(spec, type) else ""
    raise TypeError(
        f"optimizer={short(spec)} is a {type(spec).__name__}; wanted a method, an optimizer, or the name of "
        f"one{way_out}"
    )


def _rule(steps: int | None, stop: Any) -> rules.StopRule | None:
    if steps is None:
        return None if stop is None else rules.as_rule(stop)
    return rules.steps(steps) if stop is None else rules.steps(steps) | rules.as_rule(stop)
