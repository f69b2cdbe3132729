"""The arrays that `Sharded.bind` returns, and the tensors of the caller that are views of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .._arrays.tree import flatten, rebuild, show
from .._arrays.typing import Tree
from ._model import Model
from ._processes import Processes


class Bound:
    """Views of the flat arrays of a model, in the caller's containers.

    Parameters
    ----------
    processes : Processes
        The ranks.
    model : Model
        The model, with its flat arrays.
    params : container of array
        The caller's parameters. Those that require a gradient become views of the flat arrays.
    """

    def __init__(self, processes: Processes, model: Model, params: Tree) -> None:
        self._processes, self.model = processes, model
        views = model.views([flat.params for flat in model.flats])
        grads = model.views([flat.grads.flat for flat in model.flats])
        self._laid = [
            (name, x, views[name], grads[name])
            for name, x in flatten(params, "params").items()
            if processes.lay(x, views[name], grads[name])
        ]
        self._views = [(name, views[name], grads[name]) for name in views]
        self.params: Any = rebuild(params, views.__getitem__)
        self.grads: Any = rebuild(params, grads.__getitem__)

    def collect(self) -> None:
        """Raise if arrays that `bind` returned were replaced; copy gradients that are not views of the flat arrays."""
        params, grads = flatten(self.params, "params"), flatten(self.grads, "grads")
        for name, param, grad in self._views:
            for what, found, wanted in (("params", params, param), ("grads", grads, grad)):
                if found.get(name) is not wanted:
                    raise ValueError(
                        f"Sharded: {show(name)} of the {what} that bind returned was replaced by another array, which "
                        f"would not be read; write into the array that bind returned, {what}[...][:] = values"
                    )
        for name, x, param, grad in self._laid:
            if wrong := self._processes.collect(x, param, grad):
                raise ValueError(f"Sharded: parameter {show(name)} {wrong}")

    def built(self, arrays: list[Any]) -> Any:
        """Return parameters in the caller's containers, as views of one array for each section."""
        views: dict[Hashable, Any] = self.model.views(arrays)
        return rebuild(self.params, views.__getitem__)
