"""Optimizers as methods of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import stop as rules
from ..optimizers.base import OptimizerBase
from ..solvers._method import Method
from ..solvers.minimize import solver_of

__all__ = ["method"]


def method(optimizer: str | Mapping[str, Any] | Method | OptimizerBase) -> Callable[..., Any]:
    """Return an optimizer or solver as the argument ``method`` of `scipy.optimize.minimize`.

    Parameters
    ----------
    optimizer : str, mapping, Method or OptimizerBase
        As for `minimize`. It is copied at each call.

    Returns
    -------
    callable
        It requires ``jac``. It takes ``bounds``, ``tol`` (it stops when no gradient element is larger), ``callback``,
        which is also called at the start, and the options ``maxiter``, ``stop`` and ``disp``. It refuses ``hess``,
        ``hessp`` and ``constraints``. In its result, ``jac`` is the gradient at ``x``, and ``status`` is 0 if a rule
        about values or gradients stopped it, 1 if it ran out of steps or time, 2 if no lower value was found, and 99
        if the callback raised StopIteration.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is not an optimizer or solver.
    """
    solver_of(optimizer, np.zeros(1), None, None)  # raises early if it is not one

    def minimize(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[..., Any] | None = None,
        tol: float | None = None,
        maxiter: int | None = None,
        stop: Any = None,
        disp: bool = False,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        unknown = [*options, *(name for name, it in (("hess", hess), ("hessp", hessp)) if it is not None)]
        if constraints is not None and not (isinstance(constraints, list | tuple) and not constraints):
            unknown.append("constraints")
        if unknown:
            raise TypeError(f"{', '.join(unknown)}: not supported by a method of xpopt; leave it out")
        if not callable(jac):
            raise TypeError(
                "a method of xpopt needs the gradient; pass jac=True if fun returns value and gradient, or a function"
            )
        if np.iscomplexobj(x0):
            raise TypeError(
                "x0 is complex, and scipy.optimize.minimize takes real numbers only; use xpopt.minimize instead"
            )
        rule = None if stop is None else rules.as_rule(stop)
        if tol is not None:
            rule = rules.gradient_norm(tol) if rule is None else rule | rules.gradient_norm(tol)
        if maxiter is not None:
            first = rules.gradient_norm(1e-5) if rule is None else rule
            rule = first | rules.steps(maxiter)
        x0 = np.asarray(x0, np.float64)
        box = None if bounds is None else _pair(bounds, x0.shape)
        solver = solver_of(optimizer, x0 if box is None else np.clip(x0, *box), rule, box)

        last: Any = None

        def evaluate(x: Any) -> tuple[float, Any]:
            # SciPy keeps what fun returned by the point: fun may overwrite its own
            nonlocal last
            value, last = np.asarray(fun(x.copy(), *args), np.float64).item(), np.asarray(jac(x, *args), np.float64)
            return value, last

        best: Any = math.nan, None

        def stepped(info: dict[str, Any]) -> None:
            nonlocal best
            if info["best_value"] != best[0]:  # the gradient told last is that of the point that was accepted
                best = info["best_value"], np.array(last)
            if called is not None:
                called(info)

        called = None if callback is None else _called_back(callback)
        status, message = 0, ""
        try:
            solver.run(evaluate, callback=stepped, progress=disp)
        except _StoppedError:
            status, message = 99, "`callback` raised `StopIteration`."
        found = solver.result
        if not status and not solver.converged:
            status = 1 if solver._by_rule else 2
        return OptimizeResult(
            x=found.params,
            fun=found.value,
            jac=last if best[1] is None else best[1],
            nit=found.step,
            nfev=found.evaluations,
            njev=found.evaluations,
            success=status == 0,
            status=status,
            message=message or found.reason,
        )

    return minimize


class _StoppedError(Exception):
    """The callback raised StopIteration."""


def _called_back(callback: Callable[..., Any]) -> Callable[[dict[str, Any]], None]:
    """Return a function that calls a callback as SciPy does: with the point, or with ``intermediate_result``."""
    from scipy.optimize import OptimizeResult

    whole = set(inspect.signature(callback).parameters) == {"intermediate_result"}

    def call(info: dict[str, Any]) -> None:
        x = info["params"]
        try:
            if whole:
                callback(intermediate_result=OptimizeResult(x=x, fun=info["value"]))
            else:
                callback(x)
        except StopIteration as end:
            raise _StoppedError from end

    return call


def _pair(bounds: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the bounds of SciPy as two arrays."""
    if hasattr(bounds, "lb"):
        low, high = bounds.lb, bounds.ub
    else:
        bounds = list(bounds)
        if len(bounds) != math.prod(shape):
            raise ValueError(
                f"bounds has {len(bounds)} pairs, x0 has {math.prod(shape)} elements; wanted a pair for each element"
            )
        low, high = zip(*((-np.inf if a is None else a, np.inf if b is None else b) for a, b in bounds), strict=True)
    return tuple(np.array(np.broadcast_to(np.asarray(end, np.float64), shape)) for end in (low, high))  # type: ignore[return-value]
