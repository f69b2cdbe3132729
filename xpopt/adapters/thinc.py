"""Optimizers of xpopt for models of thinc, and for spaCy, whose configs refer to them by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from thinc import optimizers as theirs

from .. import optimizers
from .._settings.text import short
from ..config import make_optimizer
from ..optimizers.base import OptimizerBase

__all__ = ["Optimizer"]


class Optimizer(theirs.Optimizer):  # type: ignore[misc]
    """An optimizer of xpopt with the interface of `thinc.optimizers.Optimizer`.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`. It is copied.

    Attributes
    ----------
    optimizer : OptimizerBase
        The wrapped optimizer. The name of a parameter in it is the pair of its layer's id and its own name.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is not an optimizer.

    See Also
    --------
    OptimizerBase.update : The method that makes the updates.

    Notes
    -----
    Each optimizer that updates one parameter at a time is in thinc's registry, for example as ``xpopt.Adam.v1``, with
    its settings as arguments. Schedules are given as text there, such as ``"cosine(start=0.1, steps=1000)"``. Weight
    decay, clipping and averages are settings of the xpopt optimizer. `step_schedules` counts a step.

    Examples
    --------
    >>> import numpy as np
    >>> from xpopt.adapters.thinc import Optimizer
    >>> optimizer = Optimizer("SGD(lr=0.5)")
    >>> weights, gradient = np.ones(2), np.ones(2)
    >>> weights, gradient = optimizer((0, "W"), weights, gradient)
    >>> weights, gradient
    (array([0.5, 0.5]), array([0., 0.]))
    """

    __slots__ = ("optimizer",)

    def __init__(self, optimizer: str | Mapping[str, Any] | OptimizerBase = "Adam") -> None:
        self.optimizer = make_optimizer(optimizer).copy()
        self._last_score = None  # type: ignore[misc]  # a slot of the class of thinc

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the wrapped optimizer, from which thinc's own attributes are computed."""
        return _again, (self.optimizer, self._last_score)

    @property
    def _step(self) -> int:  # which thinc's class reads
        return self.optimizer.cur_step

    @property
    def averages(self) -> dict[Any, Any] | None:
        """The averages of the parameters by name, for ``use_params``; None if the optimizer keeps none."""
        entries = self.optimizer.copy().cache.items()
        found = {name: x["average"] for name, x in entries if isinstance(x, dict) and "average" in x}
        return found or None

    def step_schedules(self) -> None:
        """Count a step."""
        self.optimizer.step()

    def __call__(self, key: Any, weights: Any, gradient: Any, *, lr_scale: float = 1.0) -> tuple[Any, Any]:
        """Update a parameter in place, and set its gradient to 0.

        Parameters
        ----------
        key : tuple of (int, str)
            The name of the parameter: the id of its layer, and its name there.
        weights, gradient : array
            The parameter and its gradient. Both are written in place.
        lr_scale : float
            Must be 1: the learning rate is set in the optimizer.

        Returns
        -------
        weights, gradient : array
            The same arrays.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `OptimizerBase.update`; or `lr_scale` is not 1. Nothing has changed.
        """
        if lr_scale != 1:
            raise ValueError(
                f"lr_scale={lr_scale!r}; wanted 1. To scale the learning rate, set lr_scale of the optimizer instead"
            )
        weights = self.optimizer.update(weights, gradient, key, out=weights)
        gradient[...] = 0
        return weights, gradient

    def to_gpu(self) -> None:
        """Do nothing: the state of a parameter moves to the device of the parameter."""

    def to_cpu(self) -> None:
        """Do nothing: the state of a parameter moves to the device of the parameter."""


def _again(optimizer: OptimizerBase, last_score: Any) -> Optimizer:
    """Return a copy from its parts."""
    found = Optimizer(optimizer)
    found._last_score = last_score  # type: ignore[misc]
    return found


def __getattr__(name: str) -> Callable[..., Optimizer]:
    """Return the function that thinc's registry has for the name of an optimizer; it takes the settings."""
    cls = getattr(optimizers, name, None)
    if not (isinstance(cls, type) and issubclass(cls, OptimizerBase) and hasattr(cls, "rule")):
        raise AttributeError(f"module {__name__!r} has no attribute {short(name)}")
    made: Any = cls

    def make(**settings: Any) -> Optimizer:
        return Optimizer(made(**settings))

    shown = made().hyperparameters
    defaults = {setting: value for setting, value in {**shown, "lr_scheduler": None}.items() if setting != "id"}
    kind = inspect.Parameter.KEYWORD_ONLY
    make.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(setting, kind, default=value, annotation=Any) for setting, value in defaults.items()]
    )
    return make
