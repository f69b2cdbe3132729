"""The loop around a solver, and how it shows how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .._settings.text import short
from .result import Result
from .solver import Solver


def run(
    solver: Solver,
    fun: Callable[[Any], Any],
    grad: Callable[[Any], Any] | None,
    callback: Callable[[dict[str, Any]], Any] | None,
    progress: bool,
) -> Result:
    """Do what `Solver.run` does."""
    given: dict[str, Any] = {"fun": fun, "grad": grad, "callback": callback}
    for name, it in given.items():
        if not callable(it) and (it is not None or name == "fun"):
            raise TypeError(f"{name}={short(it)} is a {type(it).__name__}; wanted a function{_WAYS_OUT.get(name, '')}")
    try:
        with _shown(progress) as show:
            while not solver.done:
                known = len(solver._history)
                solver.tell(*_evaluated(fun, grad, solver))
                if len(solver._history) > known:
                    info = solver.info()
                    del info["history"]
                    show(info)
                    if callback is not None:
                        callback({"params": solver.current, **info})
    except KeyboardInterrupt as interrupt:
        interrupt.result = solver.result  # type: ignore[attr-defined]
        interrupt.add_note(f"the best value so far is {solver.best_value!r}; this exception has it as .result")
        raise
    return solver.result


_WAYS_OUT = {"grad": "; leave it out where fun returns the pair (value, grads)"}


def _evaluated(fun: Callable[[Any], Any], grad: Callable[[Any], Any] | None, solver: Solver) -> tuple[Any, Any]:
    """Return value and gradient at the point that a solver wants; each function may overwrite the one it is given."""
    found = fun(solver.ask())
    if grad is not None:
        if isinstance(found, tuple):
            raise TypeError("fun returned a tuple, and there is grad=; return the value alone, or leave grad= out")
        return found, grad(solver.ask())
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"fun returned {short(found)}, a {type(found).__name__}; wanted the pair (value, grads), or give a "
            f"function of the gradient as grad="
        )
    return found


@contextmanager
def _shown(progress: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield what is called after each step."""
    if not progress:
        yield lambda info: None
        return
    try:
        from rich.console import Console
    except ImportError:

        def line(info: dict[str, Any]) -> None:
            print(f"\r{_text(info)}", end="", file=sys.stderr, flush=True)

        try:
            yield line
        finally:
            print(file=sys.stderr)
        return
    with Console(stderr=True).status("step 0") as status:
        yield lambda info: status.update(_text(info))


def _text(info: dict[str, Any]) -> str:
    return (
        f"step {info['step']}: value {info['value']:.6g}, gradient norm {info['gradient_norm']:.2g}, "
        f"{info['evaluations']} evaluations, {info['seconds']:.1f} s"
    )
