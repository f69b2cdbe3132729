"""An optimizer as a solver: each value and gradient makes one update."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .. import stop as rules
from .._arrays.library import is_complex
from .._arrays.namespace import copy_array
from .._arrays.tree import show
from .._arrays.typing import Array
from .._checkpoint.pairs import with_complex
from .._checkpoint.reading import from_json
from ..transforms.loss_scale import DynamicLossScale
from .conjugates import RISES, Conjugates
from .numbers import largest, read
from .result import Result
from .saving import like_of
from .solver import Solver

MOST = 10
"""How many values in a row may be rejected."""


def default_stop() -> rules.StopRule:
    """Return when an optimizer stops that was told nothing about it."""
    return rules.gradient_norm(1e-5) | rules.no_progress(100, 1e-9) | rules.steps(10_000)


class FirstOrder(Solver):
    """An optimizer that is asked and told.

    Parameters
    ----------
    optimizer : OptimizerBase
        It is copied.
    params : tree of array, or array
        Where to start; copied.
    stop : StopRule, callable or None
        When to stop; by default, `default_stop`.
    """

    def __init__(self, optimizer: Any, params: Any, stop: Any = None) -> None:
        maximize = optimizer.hyperparameters.get("maximize") is True
        super().__init__(params, default_stop() if stop is None else stop, -1.0 if maximize else 1.0)
        self._optimizer = optimizer.copy()
        self._params = [copy_array(x) for x in self._model.start()]
        self._here = self._top = self._params
        self._rejected = 0
        self._is_between = _has_projected_iterate(self._optimizer)
        self._conjugates = Conjugates(self._model.library) if any(map(is_complex, self._model.dtypes)) else None

    _tells_again = True

    @property
    def kind(self) -> str:
        """The optimizer's class."""
        return type(self._optimizer).__name__

    @property
    def optimizer(self) -> Any:
        """The optimizer: a copy of the one that was given, with the state of the steps made."""
        return self._optimizer

    @property
    def result(self) -> Result:
        """What has come of it so far."""
        found = super().result
        return replace(found, value=self._history[-1].value) if self._is_between and self._history else found

    def _wanted(self) -> list[Array]:
        return [copy_array(x) for x in self._params]

    def _best(self) -> list[Array]:
        if self._is_between and self._optimizer.cur_step:
            names = self._model.names
            iterate = self._optimizer.averaged(dict(zip(names, self._params, strict=True)))
            return [iterate[name] for name in names]
        return [copy_array(x) for x in self._top]

    def _current(self) -> list[Array]:
        return [copy_array(x) for x in self._here]

    def _take(self, value: Any, grads: list[Array]) -> None:
        loss, norm, *along = self._read(value, grads)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            if not self._history:
                self._model.check_start(self._params)
            if math.isfinite(loss) and isinstance(self._optimizer.loss_scale, DynamicLossScale):
                self._updated(grads, loss)  # it leaves the step out by itself, and lowers its scale
            self._evaluations += 1
            self._rejected += 1
            if self._rejected >= MOST:
                self._reason = f"{MOST} values or gradients in a row were not finite"
            return
        optimizer = self._optimizer
        scheduler = copy.deepcopy(optimizer.lr_scheduler, {id(optimizer): optimizer})
        rate = scheduler(step=optimizer.cur_step, cur_loss=loss)
        before = self._evaluations, self.best_value
        self._evaluations += 1
        row = self._row(self.step + 1 if self._history else 0, loss, norm, rate)
        self._history.append(row)
        try:
            reason = self._stop(self.info())
            params = self._params if reason else self._updated(grads, loss)
        except BaseException:
            self._history.pop()
            self._evaluations = before[0]
            raise
        self._here, self._rejected = self._params, 0
        if row.best_value != before[1]:
            self._top = self._params
        self._params, self._reason, self._by_rule = params, reason, bool(reason)
        if self._conjugates is not None and not reason:
            if along and self._conjugates.judge(loss - self._history[-2].value, loss, along):
                self._reason = RISES
            self._conjugates.begun = self._conjugates.along(grads, self._here, params)

    def _updated(self, grads: list[Array], loss: float) -> list[Array]:
        """Make an update; return the new parameters."""
        optimizer, names = self._optimizer, self._model.names
        own, gradients = (dict(zip(names, leaves, strict=True)) for leaves in (self._params, grads))
        new = optimizer.update_all(own, gradients, loss)
        if self._model.library.deferred:  # or each step would do again what all before it have done
            new = optimizer.persist(new)
        return [new[name] for name in names]

    def _read(self, value: Any, grads: list[Array]) -> tuple[float, ...]:
        """Return value and gradient norm, which are read together, and what `Conjugates.judge` takes."""
        library, optimizer = self._model.library, self._optimizer
        items = [value]
        if any(optimizer.hyperparameters.get(name) is not None for name in ("bounds", "prox")):
            named = (dict(zip(self._model.names, leaves, strict=True)) for leaves in (self._params, grads))
            items.append(optimizer.stationarity(*named))

        along: list[Any] = []
        if self._conjugates is not None and self._conjugates.begun:
            along = [*self._conjugates.begun, *self._conjugates.along(grads, self._here, self._params)]

        def found(first: Array) -> Any:
            return read(library, first, [*items, *(largest(library.xp, x) for x in grads), *along])

        numbers = library.guard(found)(grads[0])
        norms, told = np.split(numbers[1:], [len(items) - 1 + len(grads)])
        norm = norms[0] if len(items) > 1 and np.isfinite(norms).all() else norms.max()
        return float(numbers[0]), float(norm), *told

    def _saved(self) -> tuple[dict[str, Any], dict[str, Any]]:
        state = self._optimizer.state_dict()
        arrays = {f"optimizer/{key}": x for key, x in state["arrays"].items()}
        for kind, leaves in (("params", self._params), ("here", self._here), ("best", self._top)):
            arrays |= {f"{kind}/{i}": copy_array(x) for i, x in enumerate(leaves)}
        data = {"optimizer": state["header"], "rejected": self._rejected}
        if self._conjugates is not None:
            data["conjugates"] = self._conjugates.saved(self._params[0])
        return data, arrays

    def _restored(self, data: Mapping[str, Any], arrays: Mapping[str, Any]) -> Callable[[], None]:
        optimizer = self._optimizer.copy()
        header = data["optimizer"]
        slots = {key[10:]: x for key, x in arrays.items() if key.startswith("optimizer/")}
        if all(isinstance(x, np.ndarray) for x in slots.values()):
            written = from_json(header, owned=False).parameters
            slots = with_complex([one for one in written if len(one.slots) <= len(slots)], slots)
        optimizer.load_state_dict({"header": header, "arrays": slots})
        params, here, top = (
            [like_of(arrays[f"{kind}/{i}"], x, f"{kind} {show(name)}") for i, (name, x) in enumerate(self._named())]
            for kind in ("params", "here", "best")
        )
        rejected = int(data["rejected"])
        conjugates = self._conjugates and Conjugates(self._model.library, data.get("conjugates"))

        def become() -> None:
            self._optimizer, self._params, self._here, self._top = optimizer, params, here, top
            self._rejected, self._conjugates = rejected, conjugates

        return become

    def _named(self) -> Any:
        return zip(self._model.names, self._params, strict=True)


def _has_projected_iterate(optimizer: Any) -> bool:
    """Whether only the last iterate is in the set, as of FISTA: values at the points between may be below its own."""
    settings = optimizer.hyperparameters
    maps = any(settings.get(name) is not None for name in ("bounds", "prox")) or bool(optimizer.groups)
    own = getattr(type(optimizer), "evaluated", None) is not None and settings.get("average") is None
    return maps and own and type(optimizer).proximal
