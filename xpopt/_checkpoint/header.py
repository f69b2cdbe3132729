"""The header: everything of an optimizer's state but the arrays, as JSON has it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

FORMAT = 1
"""The version of the format; a reader of one version refuses any newer one."""


LR = "lr"
"""The name in the place of a schedule's class where the setting itself is the schedule."""


class CheckpointError(ValueError):
    """A checkpoint is damaged or does not fit. The message lists every reason; nothing has been loaded."""

    __module__ = __name__.rpartition("._checkpoint")[0]  # where it is public, for tracebacks


def refusal(problems: Iterable[str]) -> CheckpointError:
    """Return one error for all that is wrong."""
    problems = list(problems)
    if len(problems) == 1:
        return CheckpointError(problems[0])
    return CheckpointError("\n  - ".join([f"{len(problems)} things are wrong:", *problems]))


class Slot(NamedTuple):
    """The array of one slot of one parameter."""

    shape: tuple[int, ...]
    dtype: str | None  # None in a header of before it was written: then the parameter's says what it is


class Parameter(NamedTuple):
    """What is written of one parameter."""

    name: Hashable
    shape: tuple[int, ...] | None  # None, as below, where it is not known: no update was made since the entry came
    dtype: str | None
    updates: int
    slots: dict[str, Slot]

    @property
    def known_shape(self) -> tuple[int, ...]:
        """The shape as far as it is known, or else that of the largest slot."""
        shapes = (slot.shape for slot in self.slots.values())
        return self.shape if self.shape is not None else max(shapes, key=len, default=())


class Schedule(NamedTuple):
    """A schedule: its class name, its keywords, and what it remembers."""

    name: str
    hyperparameters: dict[str, Any]
    state: dict[str, Any]


class Current(NamedTuple):
    """The pass that is under way: the rate that holds for all of it, and the parameters that it has reached."""

    rate: float
    names: tuple[Hashable, ...]


class Gathered(NamedTuple):
    """Of a step of several gradients, the passes that are over, and the parameters that the next one has reached."""

    passes: int
    names: tuple[Hashable, ...]


class LossScale(NamedTuple):
    """What the loss is multiplied by: that, the finite steps since it moved, and what the pass under way has met."""

    value: float
    steps: int
    failed: bool | None


class Remembered(NamedTuple):
    """What a schedule remembers that draws a number of a group, or of the optimizer, which is group 0."""

    group: int
    number: str
    state: Any


class Grouped(NamedTuple):
    """What is written of a group: parameters with settings of their own."""

    pattern: str | None  # None: all that the optimizer does not take; those behind it are of such parameters too
    rule: tuple[str, int] | None  # another optimizer's class name and version
    settings: dict[str, Any] | None  # those that differ, or all of another optimizer's; None: it is frozen
    schedule: Schedule | None  # None: its rate is that of the optimizer
    rate: float | None  # of the pass that is under way


def named(groups: tuple[Grouped, ...]) -> tuple[Grouped, ...]:
    """Return the groups in front of those of parameters that the optimizer does not take."""
    count = next((k for k, one in enumerate(groups) if one.pattern is None), len(groups))
    return groups[:count]


@dataclass(frozen=True)
class Header:
    """The state of an optimizer, its arrays left out.

    Parameters
    ----------
    rule : str
        The optimizer's class name.
    version : int
        Its version, at least 1.
    settings : dict
        Hyperparameters by name. What a class has and is not here leaves the formula as it would be without it.
    groups : tuple of Grouped
        In their order.
    schedule : Schedule
        The schedule of the learning rate.
    cur_step : int
        The step count, at least 0.
    skipped : int
        How many steps were left out, at least 0.
    current : Current or None
        The pass that is under way.
    gathered : Gathered or None
        How far a step of several gradients is; None between two steps.
    loss_scale : LossScale or None
        Where steps decide about it, and have.
    remembered : tuple of Remembered
        By schedules of other settings than the learning rate, where they do.
    parameters : tuple of Parameter
        In the order of the cache.
    """

    rule: str
    version: int
    settings: dict[str, Any]
    groups: tuple[Grouped, ...]
    schedule: Schedule
    cur_step: int
    skipped: int
    current: Current | None
    gathered: Gathered | None
    loss_scale: LossScale | None
    remembered: tuple[Remembered, ...]
    parameters: tuple[Parameter, ...]


def check_format(value: Any) -> None:
    """Raise a CheckpointError if a header is of a newer format, of which nothing else may be asked."""
    version = value.get("format_version") if isinstance(value, Mapping) else None
    if type(version) is int and version > FORMAT:
        raise CheckpointError(
            f"the checkpoint has format version {short(version)}, and this xpopt reads {FORMAT}; update xpopt"
        )
    if version != FORMAT or type(version) is not int:
        raise CheckpointError(f"the header has format_version {short(version)}; wanted {FORMAT}")


def plain(value: Any, place: str) -> Any:
    """Return a copy of `value`, made of nothing but what JSON has, and NaN and infinity.

    Parameters
    ----------
    value : None, bool, int, float, str, NumPy scalar, list or dict with keys of str
        Nested at will.
    place : str
        Where it stands, for the message.

    Returns
    -------
    object
        Equal to `value`.

    Raises
    ------
    TypeError
        Something in it is of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{place} has the key {key!r}, a {type(key).__name__}; a checkpoint keeps strings")
        return {key: plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    raise TypeError(
        f"{place} is a {type(value).__name__}; a checkpoint keeps None, numbers, strings, and lists and dicts of these"
    )
