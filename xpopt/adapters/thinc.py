"""Optimizers as those of thinc: for its models, and for spaCy's, whose configs name them."""

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
    """An optimizer of xpopt behind the interface of `thinc.optimizers.Optimizer`.

    Parameters
    ----------
    optimizer : str, mapping or OptimizerBase
        As for `make_optimizer`; copied.

    Attributes
    ----------
    optimizer : OptimizerBase
        The optimizer inside. A parameter's name there is the pair of the id of its layer, and its own name.

    Raises
    ------
    TypeError, ValueError
        `optimizer` is none.

    See Also
    --------
    OptimizerBase.update : What makes the steps.

    Notes
    -----
    Each optimizer that updates one parameter at a time is in thinc's registry, as ``xpopt.Adam.v1``, with its settings;
    a schedule is a text there, such as ``"cosine(start=0.1, steps=1000)"``. Decay, clipping and averages are settings
    of the optimizer, and not of thinc's. `step_schedules` counts a step.

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
        """Copy and pickle the optimizer inside, of which thinc's own attributes are made."""
        return _again, (self.optimizer, self._last_score)

    @property
    def _step(self) -> int:  # from which thinc's class answers
        return self.optimizer.cur_step

    @property
    def averages(self) -> dict[Any, Any] | None:
        """The averages of the parameters by name, for ``use_params``; None where the optimizer keeps none."""
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
            Its name.
        weights, gradient : array
            The parameter and its gradient, both written.
        lr_scale : float
            1, for the rate is the optimizer's.

        Returns
        -------
        weights, gradient : array
            The same arrays.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            As for `OptimizerBase.update`; or another `lr_scale`. Nothing has changed.
        """
        if lr_scale != 1:
            raise ValueError(f"lr_scale={lr_scale!r}; wanted 1: a factor on the rate is lr_scale of the optimizer")
        weights = self.optimizer.update(weights, gradient, key, out=weights)
        gradient[...] = 0
        return weights, gradient

    def to_gpu(self) -> None:
        """Do nothing: state goes to where a parameter is."""

    def to_cpu(self) -> None:
        """Do nothing: state goes to where a parameter is."""


def _again(optimizer: OptimizerBase, last_score: Any) -> Optimizer:
    """Return what was copied."""
    found = Optimizer(optimizer)
    found._last_score = last_score  # type: ignore[misc]
    return found


def __getattr__(name: str) -> Callable[..., Optimizer]:
    """Return the function that thinc's registry has of an optimizer's name, which takes its settings."""
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
