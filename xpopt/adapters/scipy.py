"""Optimizers as methods of `scipy.optimize.minimize`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import stop as rules
from ..optimizers.base import OptimizerBase
from ..solvers._method import Method
from ..solvers.minimize import solver_of

__all__ = ["method"]


def method(optimizer: str | Mapping[str, Any] | Method | OptimizerBase) -> Callable[..., Any]:
    """Return what `scipy.optimize.minimize` takes as ``method=``.

    Parameters
    ----------
    optimizer : str, mapping, Method or OptimizerBase
        As for `minimize`; copied at each call.

    Returns
    -------
    callable
        It needs ``jac``, and takes ``bounds``, ``tol`` (the largest gradient element at the end), ``callback``, and the
        options ``maxiter`` and ``stop``. It refuses ``hess``, ``hessp`` and ``constraints``.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is none.
    """
    solver_of(optimizer, np.zeros(1), None, None)  # says at once what is wrong with it

    def minimize(
        fun: Callable[..., Any],
        x0: Any,
        args: tuple[Any, ...] = (),
        jac: Any = None,
        hess: Any = None,
        hessp: Any = None,
        bounds: Any = None,
        constraints: Any = (),
        callback: Callable[[Any], Any] | None = None,
        tol: float | None = None,
        maxiter: int | None = None,
        stop: Any = None,
        **options: Any,
    ) -> Any:
        from scipy.optimize import OptimizeResult

        unknown = [*options, *(name for name, it in (("hess", hess), ("hessp", hessp)) if it is not None)]
        if constraints is not None and not (isinstance(constraints, list | tuple) and not constraints):
            unknown.append("constraints")
        if unknown:
            raise TypeError(f"a method of xpopt takes no {', '.join(unknown)}")
        if not callable(jac):
            raise TypeError("a method of xpopt needs the gradient: jac=True where fun returns both, or a function")
        rule = None if stop is None else rules.as_rule(stop)
        if tol is not None:
            rule = rules.gradient_norm(tol) if rule is None else rule | rules.gradient_norm(tol)
        if maxiter is not None:
            first = rules.gradient_norm(1e-5) if rule is None else rule
            rule = first | rules.steps(maxiter)
        x0 = np.asarray(x0, np.float64)
        solver = solver_of(optimizer, x0, rule, None if bounds is None else _pair(bounds, x0.shape))
        found = solver.run(
            lambda x: (float(fun(x, *args)), np.asarray(jac(x, *args), np.float64)),
            callback=None if callback is None else lambda info: callback(info["params"]),
        )
        return OptimizeResult(
            x=found.params,
            fun=found.value,
            nit=found.step,
            nfev=found.evaluations,
            njev=found.evaluations,
            success=found.step < maxiter if maxiter is not None else True,
            status=0,
            message=found.reason,
        )

    return minimize


def _pair(bounds: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return the bounds of SciPy as two arrays."""
    if hasattr(bounds, "lb"):
        low, high = bounds.lb, bounds.ub
    else:
        low, high = zip(*((-np.inf if a is None else a, np.inf if b is None else b) for a, b in bounds), strict=True)
    return tuple(np.array(np.broadcast_to(np.asarray(end, np.float64), shape)) for end in (low, high))  # type: ignore[return-value]
