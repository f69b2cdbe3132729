"""What every solver is: asked for a point, told value and gradient there."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from .._settings.text import short
from ..stop import StopRule, as_rule
from .model import Model
from .result import Result, Row, Rows
from .saved import Saved


class Solver(Saved, ABC):
    """A minimization in progress: `ask` returns a point, and `tell` takes the value and gradient there.

    Solvers are made by ``optimizer.solver(params)``, and by the methods `LBFGS`, `NonlinearCG` and `GradientDescent` in
    the same way.

    Parameters
    ----------
    params : tree of array, or array
        Where to start: a container, nested at will, of arrays of one library; or one array. They are
        copied.
    stop : StopRule or callable
        When to stop.
    scale : float
        -1 where the largest value is looked for, else 1.

    Examples
    --------
    >>> import numpy as np
    >>> import xpopt
    >>> solver = xpopt.LBFGS().solver({"x": np.array([4.0, -2.0])}, stop=xpopt.stop.gradient_norm(1e-8))
    >>> while not solver.done:
    ...     x = solver.ask()["x"]
    ...     solver.tell(x @ x, {"x": 2 * x})
    >>> solver.best, solver.reason
    ({'x': array([0., 0.])}, 'the gradient norm 0 is at most 1e-08')
    """

    def __init__(self, params: Any, stop: StopRule | Callable[[Mapping[str, Any]], Any], scale: float = 1.0) -> None:
        self._model = Model(params)
        self._stop = as_rule(stop)
        self._scale = scale
        self._history: list[Row] = []
        self._reason = ""
        self._by_rule = False  # whether that is the reason of the rule
        self._evaluations = 0
        self._spent = 0.0  # seconds of runs before
        self._began: float | None = None

    _tells_again = False
    """Whether the point at which a rule stops is to be told once more to go on from there."""

    # What is known

    @property
    @abstractmethod
    def kind(self) -> str:
        """The method, as text."""

    @property
    def done(self) -> bool:
        """Whether it has stopped; `tell` is then an error."""
        return bool(self._reason)

    @property
    def reason(self) -> str:
        """Why it has stopped; empty before."""
        return self._reason

    @property
    def converged(self) -> bool:
        """Whether it has stopped where it should: by a rule about what was found, or where the gradient is 0."""
        if not (self._reason and self._history):
            return False
        return self._history[-1].gradient_norm == 0 or (self._by_rule and self._stop.met(self.info()))

    @property
    def step(self) -> int:
        """The number of steps made."""
        return self._history[-1].step if self._history else 0

    @property
    def evaluations(self) -> int:
        """How many values it was told."""
        return self._evaluations

    @property
    def history(self) -> list[Row]:
        """A row for the start and for each step; a new list."""
        return list(self._history)

    @property
    def best_value(self) -> float:
        """The best value so far; NaN before the first."""
        return self._history[-1].best_value if self._history else math.nan

    @property
    def best(self) -> Any:
        """The parameters of the best value so far, in new arrays; those at the start before the first value."""
        return self._model.tree(self._best())

    @property
    def current(self) -> Any:
        """The point of the last step, in new arrays; the start before the first value."""
        return self._model.tree(self._current())

    @property
    def result(self) -> Result:
        """What has come of it so far."""
        return Result(
            self.best, self.best_value, self._reason or "it goes on", self.step, self._evaluations, self.history
        )

    def info(self) -> dict[str, Any]:
        """Return what a rule of `stop` is given.

        Returns
        -------
        dict
            As `StopRule.__call__` takes it.

        Raises
        ------
        RuntimeError
            It has taken no value yet.
        """
        if not self._history:
            raise RuntimeError("the solver has no value yet; call tell first")
        return info_of(self._history, self._evaluations, self._seconds())

    # Ask and tell

    def ask(self) -> Any:
        """Return the point at which value and gradient are wanted.

        Returns
        -------
        tree of array, or array
            Like the parameters, in new arrays, which are the caller's. Asked again, the same; when it is done, the
            best.
        """
        if self._began is None:
            self._began = time.perf_counter()
        return self._model.tree(self._best() if self._reason else self._wanted())

    def tell(self, value: Any, grads: Any) -> None:
        """Take value and gradient at the point that was asked for.

        Parameters
        ----------
        value : float, or array of shape ()
            The value of the function.
        grads : like the parameters
            Its gradient; only read. Of a complex parameter the direction of steepest ascent.

        Raises
        ------
        TypeError, ValueError
            The value is no scalar, or the gradient has other names, shapes, or is of another library. Nothing is
            changed then.
        ValueError
            From `LBFGS`, `NonlinearCG` and `GradientDescent`: the value rises along the negative gradient.
        RuntimeError
            The solver is done.
        """
        if self._reason:
            raise RuntimeError(f"the solver is done: {self._reason}; make another one to continue from its best")
        self._take(self._model.value(value), self._model.gradients(grads))

    def run(
        self,
        fun: Callable[[Any], Any],
        grad: Callable[[Any], Any] | None = None,
        *,
        callback: Callable[[dict[str, Any]], Any] | None = None,
        progress: bool = False,
    ) -> Result:
        """Ask and tell until it is done.

        Parameters
        ----------
        fun : callable
            ``fun(params) -> (value, grads)``; with `grad`, the value alone.
        grad : callable, optional
            ``grad(params) -> grads``.
        callback : callable, optional
            Called at the start and after each step with a dict: ``"params"``, the point that was accepted, and
            ``"step"``, ``"value"``, ``"gradient_norm"``, ``"rate"``, ``"evaluations"``, ``"best_value"`` and
            ``"seconds"``.
        progress : bool
            Whether to show how far it is: with rich where that is installed, else in a line on stderr.

        Returns
        -------
        Result
            As `result`. Where Ctrl-C interrupts it, the solver keeps its best, and the KeyboardInterrupt has it as its
            attribute ``result``.

        Raises
        ------
        TypeError, ValueError
            As for `tell`, or what `fun` returned is no pair.
        """
        from .run import run

        return run(self, fun, grad, callback, progress)

    # What the kinds of solvers differ in

    @abstractmethod
    def _wanted(self) -> list[Any]:
        """Return the leaves of the point that is wanted, new arrays."""

    @abstractmethod
    def _best(self) -> list[Any]:
        """Return the leaves of the best point so far, new arrays."""

    @abstractmethod
    def _current(self) -> list[Any]:
        """Return the leaves of the point of the last row, new arrays."""

    @abstractmethod
    def _take(self, value: Any, grads: list[Any]) -> None:
        """Take value and gradient, which have been checked."""

    @abstractmethod
    def _saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what it remembers beside what every solver does: as JSON has it, and arrays by name."""

    @abstractmethod
    def _restored(self, data: Mapping[str, Any], arrays: Mapping[str, Any]) -> Callable[[], None]:
        """Check what `_saved` returned, with arrays of any library; return what becomes it by assignments alone."""

    # Helpers

    def _row(self, step: int, value: float, norm: float, rate: float) -> Row:
        """Return the row of a value that was accepted."""
        best = self.best_value
        better = math.isnan(best) or self._scale * value < self._scale * best
        return Row(step, value, norm, rate, self._evaluations, value if better else best)

    def _seconds(self) -> float:
        return self._spent + (0.0 if self._began is None else time.perf_counter() - self._began)

    def __repr__(self) -> str:
        """Say how far it is."""
        best = short(self.best_value)
        return f"<{type(self).__name__}: step {self.step}, best value {best}{self._reason and ', '}{self._reason}>"


def info_of(history: list[Row], evaluations: int, seconds: float) -> dict[str, Any]:
    """Return what a rule of `stop` is given."""
    return {**history[-1]._asdict(), "evaluations": evaluations, "seconds": seconds, "history": Rows(history)}
