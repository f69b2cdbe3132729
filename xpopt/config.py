"""Optimizers from text and dicts, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import optimizers
from ._settings.make import make
from ._settings.text import parse, short
from .optimizers.base import OPTIMIZERS, OptimizerBase


def make_optimizer(spec: str | Mapping[str, Any] | OptimizerBase | None = None) -> OptimizerBase:
    """Make an optimizer from what describes it.

    Parameters
    ----------
    spec : None, str, mapping or OptimizerBase
        A class name in any case (``"adam"``); a call (``"SGD(lr=0.1, lr_scheduler=NoamScheduler(model_dim=512))"``), of
        which only literals are read and nothing is executed; a dict (``{"id": "SGD", "lr": 0.1}``), also with state
        (``{"hyperparameters": {"id": "SGD", "lr": 0.1}, "cache": {...}}``); an optimizer, which is returned as it is;
        None for `SGD` with its defaults. Classes that you have defined are found too, and those that installed
        distributions register as entry points of the group ``xpopt.optimizers``, which are then imported.

    Returns
    -------
    OptimizerBase
        The optimizer. ``make_optimizer(str(opt))`` has the settings of ``opt``.

    Raises
    ------
    ImportError
        The entry point of that name cannot be loaded.
    TypeError
        `spec` is none of the above, or a value is of the wrong type.
    ValueError
        A name or keyword is unknown, the text cannot be read, or a value is out of range. For text the message points
        at the position.

    Examples
    --------
    >>> make_optimizer("adam")
    Adam(lr=0.001, decay1=0.9, decay2=0.999, eps=1e-07, clip_norm=None, lr_scheduler=ConstantScheduler(lr=0.001))
    """
    if isinstance(spec, OptimizerBase):
        return spec
    if spec is None:
        return optimizers.SGD()
    if not isinstance(spec, str | Mapping):
        raise _no_optimizer(spec)
    made: OptimizerBase = make(OPTIMIZERS, parse(spec))
    return made


class OptimizerInitializer:
    """`make_optimizer`, in two steps: ``OptimizerInitializer("adam")()``.

    Parameters
    ----------
    param : None, str, mapping or OptimizerBase
        The `spec` of `make_optimizer`.
    """

    def __init__(self, param: str | Mapping[str, Any] | OptimizerBase | None = None) -> None:
        self.param = param

    def __call__(self) -> OptimizerBase:
        """Make the optimizer.

        Returns
        -------
        OptimizerBase
            As `make_optimizer` returns it.
        """
        return make_optimizer(self.param)


def _no_optimizer(spec: object) -> TypeError:
    way_out = f"; call it, {spec.__name__}()" if isinstance(spec, type) and issubclass(spec, OptimizerBase) else ""
    wanted = "wanted None, an optimizer object, a name, a call string or a dict"
    return TypeError(f"{short(spec)} is not an optimizer; {wanted}{way_out}")
