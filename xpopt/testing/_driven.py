"""A host under test, and the same steps by the optimizer without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..config import make_optimizer
from ..optimizers.base import OptimizerBase
from ..schedulers.make import make_scheduler
from ._arrays import Arrays, assert_close, assert_same
from ._subject import STEPS, loss

SHAPES = {"W": (3, 2), "V": (3, 2), "b": (2,)}
"""Two parameters have the same shape, so that only their names differ."""
ADAM = "Adam(lr=0.125)"
HALVING = "ExponentialScheduler(initial_lr=0.125, stage_length=1, decay=0.5, staircase=True)"
KING = "KingScheduler(initial_lr=0.125, patience=2, decay=0.5)"
PLATEAUS = (
    "plateau(start=0.125, factor=0.5, patience=0, tol=0.5)",
    "plateau(start=0.125, factor=0.5, patience=0, tol=0.35, relative=False)",
)
HALVES = (8.0, 3.9, 1.9, 0.9, 0.44, 0.2)
"""Losses of which each is below half the one before, and the last alone less than 0.35 below it."""


class Driven:
    """A host that makes steps through calls of one function.

    Parameters
    ----------
    update : callable
        As for `host_checks`.
    loss : bool
        Whether it takes the loss.
    tolerance : float
        The largest difference to the optimizer's numbers, relative to the largest.
    """

    def __init__(self, update: Callable[..., Any], *, loss: bool, tolerance: float) -> None:
        self._update = update
        self._loss = loss
        self._tolerance = tolerance
        self._numpy = Arrays("numpy")

    def params(self, *names: str, dtype: str = "float64") -> dict[str, Any]:
        """Return the initial parameters of these names; all of them without names."""
        return self._model(0, names, dtype)

    def grads(self, k: int, *names: str, dtype: str = "float64") -> dict[str, Any]:
        """Return the gradients of step `k`, from 1. Those of b are 0 in one step, which must not be skipped."""
        found = self._model(k, names, dtype)
        if k == STEPS // 2 and "b" in found:
            found["b"] = np.zeros_like(found["b"])
        return found

    def _model(self, k: int, names: Any, dtype: str) -> dict[str, Any]:
        return self._numpy.model({name: SHAPES[name] for name in names or SHAPES}, k, dtype)  # type: ignore[return-value]

    def step(self, opt: OptimizerBase, params: Any, grads: Any, k: int, *, losses: Any = loss) -> Any:
        """Let the host make a step; return the new parameters."""
        new = self._update(opt, params, grads, *([losses(k)] if self._loss else []))
        assert isinstance(new, Mapping), (
            f"update returned a {type(new).__name__}; wanted a dict of the parameters by name"
        )
        return new

    def beside(self, make: Callable[[], OptimizerBase], *names: str, losses: Any = loss) -> None:
        """Train with the host and with the optimizer only, and compare after each step."""
        driven, alone = make(), make()
        params, want = self.params(*names), self.params(*names)
        for k in range(1, STEPS + 1):
            params = self.step(driven, params, self.grads(k, *names), k, losses=losses)
            want = alone.update_all(want, self.grads(k, *names), losses(k) if self._loss else None)
            self.compare(params, want, f"{alone}, step {k}")

    def compare(self, params: Mapping[Any, Any], want: Mapping[Any, Any], what: str) -> None:
        """Assert that parameters equal those of the optimizer without the host."""
        assert_close(params, want, self._tolerance, what)


def adam(schedule: Any = None) -> OptimizerBase:
    """Return an Adam, with a schedule if one is given."""
    opt = make_optimizer(ADAM)
    if schedule is not None:
        opt.lr_scheduler = make_scheduler(schedule)
    return opt


def numbers(host: Driven) -> None:
    """Train one parameter with several methods."""
    for text in (ADAM, "SGD(lr=0.125, momentum=0.5, clip_norm=0.5)", "AdamW(lr=0.125, weight_decay=0.25)"):
        host.beside(lambda text=text: make_optimizer(text), "W")  # type: ignore[misc]


def names(host: Driven) -> None:
    """Train parameters of the same shape."""
    host.beside(adam)


def steps(host: Driven) -> None:
    """Train with a rate that is halved at each step."""
    host.beside(lambda: adam(HALVING))


def losses(host: Driven) -> None:
    """Train with a rate that falls when the loss rises. The loss falls first, so that a late loss is detected.

    Two more rates detect losses with other values, such as a sum, or a multiple of the loss.
    """
    host.beside(lambda: adam(KING), losses=lambda k: abs(k - STEPS / 2))
    for text in PLATEAUS:
        host.beside(lambda text=text: make_optimizer(f"Adam(lr={text})"), losses=lambda k: HALVES[k - 1])  # type: ignore[misc]


def inputs(host: Driven) -> None:
    """Compare the gradients before and after a step."""
    grads, want = host.grads(1), host.grads(1)
    host.step(adam(), host.params(), grads, 1)
    assert_same(grads, want, "the gradients")


def dtypes(host: Driven) -> None:
    """Check dtype and shape of parameters in float32."""
    opt, params = adam(), host.params(dtype="float32")
    for k in (1, 2):
        params = host.step(opt, params, host.grads(k, dtype="float32"), k)
        for name, shape in SHAPES.items():
            assert params[name].dtype == np.float32, f"{name!r} is {params[name].dtype}, not float32"
            assert params[name].shape == shape, f"{name!r} has shape {params[name].shape}, not {shape}"


def resume(host: Driven) -> None:
    """Replace the optimizer by a copy in the middle of a training."""
    opt = adam()
    params = host.params()
    for k in range(1, STEPS + 1):
        if k == STEPS // 2:
            opt = opt.copy()
        params = host.step(opt, params, host.grads(k), k)
    assert opt.cur_step == STEPS, f"the copy is at step {opt.cur_step}, not {STEPS}"
    other, want = adam(), host.params()
    for k in range(1, STEPS + 1):
        want = host.step(other, want, host.grads(k), k)
    assert_same({name: params[name] for name in SHAPES}, {name: want[name] for name in SHAPES}, "after a copy")


def apart(host: Driven) -> None:
    """Train two models alternately."""
    opts, models = [adam(), adam()], [host.params(), host.params()]
    for k in range(1, STEPS + 1):
        for place in (0, 1):
            models[place] = host.step(opts[place], models[place], host.grads(k + 10 * place), k)
    for place in (0, 1):
        opt, want = adam(), host.params()
        for k in range(1, STEPS + 1):
            want = opt.update_all(want, host.grads(k + 10 * place))
        host.compare(models[place], want, f"model {place + 1} of two")


def errors(host: Driven) -> None:
    """Pass a gradient of another shape and one that is not finite, and continue."""
    opt, params = adam(), host.params()
    opt.set_params({"nonfinite": "raise"})
    wrong = {"of another shape": np.ones((7, 7)), "that is not finite": np.full(SHAPES["b"], np.nan)}
    for k in range(1, STEPS + 1):
        before = {name: np.array(params[name]) for name in SHAPES}
        for what, grad in wrong.items():
            try:
                host.step(opt, params, {**host.grads(k), "b": grad}, k)
            except Exception:
                assert_same({name: params[name] for name in SHAPES}, before, "the parameters after the error")
            else:
                raise AssertionError(f"a gradient {what} was accepted")
        params = host.step(opt, params, host.grads(k), k)
    other, want = adam(), host.params()
    for k in range(1, STEPS + 1):
        want = other.update_all(want, host.grads(k), loss(k))
    host.compare(params, want, "after errors")
