"""An optimizer under test, of which each check trains a new copy on a small model."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ..optimizers.base import OptimizerBase
from ._arrays import Arrays, Shapes

SHAPES: Shapes = {"matrix": (3, 2), "vector": (5,), "number": (), "empty": (0, 2)}
STEPS = 6


class Subject:
    """An optimizer and a model for it.

    Parameters
    ----------
    optimizer : OptimizerBase or subclass
        The optimizer, which is copied, or its class, of which an instance is made with the defaults.
    arrays : Arrays
        The array library of the model.
    shapes : mapping
        The shapes of its parameters.
    """

    def __init__(self, optimizer: Any, arrays: Arrays, shapes: Shapes) -> None:
        self._optimizer = optimizer
        self.arrays = arrays
        self.shapes = shapes

    @property
    def cls(self) -> type[OptimizerBase]:
        """The optimizer's class."""
        return self._optimizer if isinstance(self._optimizer, type) else type(self._optimizer)

    def make(self) -> OptimizerBase:
        """Return an optimizer without state."""
        return self._optimizer() if isinstance(self._optimizer, type) else self._optimizer.copy()

    def params(self, dtype: str = "") -> dict[Hashable, Any]:
        """Return the initial parameters."""
        return self.arrays.model(self.shapes, 0, dtype)

    def grads(self, k: int, dtype: str = "") -> dict[Hashable, Any]:
        """Return the gradients of step `k`, from 1."""
        return self.arrays.model(self.shapes, k, dtype)

    def train(self, opt: OptimizerBase, params: Mapping[Hashable, Any], first: int = 1, last: int = STEPS) -> Any:
        """Make the steps from `first` to `last`; return the parameters after them."""
        dtype = _name(next(iter(params.values())).dtype)
        for k in range(first, last + 1):
            params = opt.update_all(params, self.grads(k, dtype), loss(k))
        return params

    def outcome(self, opt: OptimizerBase, params: Any) -> Any:
        """Return the results of a training, as NumPy arrays."""
        return {"params": self.arrays.values(params), "cache": self.arrays.values(opt.cache), "step": opt.cur_step}


def loss(k: int) -> float:
    """Return the loss of step `k`."""
    return 2.0 + 1.0 / k


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
