"""Schedules from text and dicts."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isabstract
from typing import Any

from .. import schedulers
from .._names import NAMES
from .._settings.registry import Registry
from .._settings.text import Call, parse, short
from ._elsewhere import hint, hint_of_class
from .base import SchedulerBase
from .kinds.base import Schedule


def make_scheduler(
    spec: str | Mapping[str, Any] | Call | SchedulerBase | None = None, lr: float | None = None
) -> SchedulerBase:
    """Make a scheduler from what describes it.

    Parameters
    ----------
    spec : str, mapping, SchedulerBase or None
        A class name in any case, with or without ``Scheduler`` (``"exponential"``); a call
        (``"NoamScheduler(model_dim=512)"``), of which only literals are read and nothing is executed; a dict
        (``{"id": "KingScheduler", "patience": 100}``, alone or as the value of ``"hyperparameters"``); a scheduler,
        which is returned as it is; None for a constant rate. Classes of your own are found too.
    lr : float or None
        The starting rate, where `spec` is no scheduler and does not state one.

    Returns
    -------
    SchedulerBase
        The scheduler.

    Raises
    ------
    TypeError
        `spec` is none of the above, or a value is of the wrong type.
    ValueError
        A name or keyword is unknown, `spec` cannot be read, or a value is out of range. For text the message points
        at the place.

    Examples
    --------
    >>> make_scheduler("exponential", lr=0.5)
    ExponentialScheduler(initial_lr=0.5, stage_length=500, staircase=False, decay=0.1)
    """
    if isinstance(spec, SchedulerBase):
        return spec
    if spec is None:
        spec = Call("ConstantScheduler")
    if isinstance(spec, str | Mapping):
        spec = parse(spec)
    if not isinstance(spec, Call):
        raise _no_scheduler(spec)
    kind = SCHEDULERS.find(spec.name)
    if kind is None:
        raise spec.error(f"unknown scheduler {short(spec.name)}{hint_of_class(spec.name, SCHEDULERS.names())}")
    for keyword in spec.keywords:
        if keyword not in kind.ranges:
            raise spec.error(f"{kind.__name__} has no keyword {short(keyword)}{hint(keyword, kind.ranges)}", keyword)
    if spec.cache:
        raise spec.error(f"{kind.__name__} has no cache, and got one of {short(list(spec.cache))}; leave it out")
    keywords = spec.keywords
    if lr is not None and kind.rate_name is not None:
        keywords = {kind.rate_name: lr, **keywords}
    return kind(**keywords)


class SchedulerInitializer:
    """`make_scheduler`, in two steps: ``SchedulerInitializer("exponential", lr=0.5)()``.

    Parameters
    ----------
    param : str, mapping, SchedulerBase or None
        The `spec` of `make_scheduler`.
    lr : float or None
        The starting rate, where `param` does not state one.
    """

    def __init__(
        self, param: str | Mapping[str, Any] | Call | SchedulerBase | None = None, lr: float | None = None
    ) -> None:
        self.param = param
        self.lr = lr

    def __call__(self) -> SchedulerBase:
        """Make the scheduler.

        Returns
        -------
        SchedulerBase
            The scheduler.
        """
        return make_scheduler(self.param, self.lr)


def _no_scheduler(spec: object) -> TypeError:
    way_out = ""
    if isinstance(spec, Schedule):
        way_out = f"; pass it as lr={spec}"
    elif isinstance(spec, int | float):
        way_out = f"; for a constant rate, lr={spec}"
    elif isinstance(spec, type) and issubclass(spec, SchedulerBase):
        way_out = f"; call it, {spec.__name__}()"
    elif callable(spec):
        way_out = "; derive a schedule of your own from SchedulerBase"
    wanted = "wanted None, a scheduler object, a name, a call string or a dict"
    return TypeError(f"{short(spec)} is not a scheduler; {wanted}{way_out}")


SCHEDULERS: Registry[SchedulerBase] = Registry(
    SchedulerBase,
    NAMES["Schedules"],
    lambda name: getattr(schedulers, name),
    lambda kind: not isabstract(kind),
    ending="Scheduler",
)
"""The schedules by name."""
