"""Which optimizers of other libraries have the same formula: their settings and their state."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..._arrays.namespace import library_of
from ..._arrays.tree import show
from ..._settings.caller import warn
from ..._state.names import array_key, decode, encode
from ...config import make_optimizer
from ...optimizers.base import OptimizerBase
from ...schedulers import ConstantScheduler

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Row(NamedTuple):
    """An optimizer `theirs` of another library that computes the same as one of xpopt, with these settings.

    `ours` are classes of xpopt; the first one is made. `same` maps settings there to settings here. `there` and `here`
    are the values that other settings must have; those that are not listed must have their defaults. `slots` maps slots
    here to names there. `factors` maps slots to the factor by which values here differ from those there, a number or
    ``"lr"``; ``"sign"`` means that only the signs are used. `counted` is the name there of the number of updates.
    """

    theirs: str
    ours: tuple[str, ...]
    same: Mapping[str, str]
    slots: Mapping[str, str] = NOTHING
    here: Mapping[str, Any] = NOTHING
    there: Mapping[str, Any] = NOTHING
    factors: Mapping[str, float | str] = NOTHING
    counted: str = ""


class Remembered(NamedTuple):
    """The state of a parameter: NumPy arrays, by the names of slots here."""

    shape: tuple[int, ...]
    dtype: str
    updates: int
    slots: Mapping[str, Any]


class Host(NamedTuple):
    """The optimizers of a library.

    `refused` gives the reason why an optimizer is not in `rows`, `notes` the effect of a setting on the formula.
    Settings that are `unread` do not change what is computed.
    """

    name: str
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    notes: Mapping[str, str]
    unread: frozenset[str]

    def read(self, theirs: str, settings: Mapping[str, Any]) -> tuple[Row, dict[str, Any]]:
        """Return the row of an optimizer of the library, and the settings here."""
        rows = [row for row in self.rows if row.theirs == theirs]
        if not rows:
            why = self.refused.get(theirs, "no optimizer of xpopt is known to have its formula")
            known = ", ".join(dict.fromkeys(row.theirs for row in self.rows))
            raise ValueError(f"{theirs} of {self.name} cannot be converted: {why}; wanted one of {known}")
        row, faults = min(((row, self._unlike(row, settings)) for row in rows), key=_how_many)
        if faults:
            raise ValueError(f"{theirs} of {self.name} cannot be converted with {'; '.join(faults)}")
        ours = {here: _value(settings[there], here) for there, here in row.same.items() if there in settings}
        return row, {**row.here, **ours}

    def _unlike(self, row: Row, settings: Mapping[str, Any]) -> list[str]:
        own = [name for name in settings if name not in self.unread and name not in row.same]
        unlike = [name for name in own if name not in row.there or settings[name] != row.there[name]]
        return [
            f"{name}={settings[name]!r}" + (f": {self.notes[name]}" if name in self.notes else "") for name in unlike
        ]

    def write(self, ours: str, settings: Mapping[str, Any]) -> tuple[Row, dict[str, Any]]:
        """Return the row of an optimizer of xpopt with these `hyperparameters`, and the settings there."""
        rows = [row for row in self.rows if ours in row.ours]
        if not rows:
            known = ", ".join(dict.fromkeys(name for row in self.rows for name in row.ours))
            raise ValueError(f"{self.name} is not known to have the formula of {ours}; wanted one of {known}")
        defaults = {name: x for name, x in make_optimizer(ours).hyperparameters.items() if name not in _APART}
        row, faults = min(((row, _unlike(row, settings, {**defaults, **row.here})) for row in rows), key=_how_many)
        if faults:
            raise ValueError(f"{self.name} is not known to have the formula of {ours} with {', '.join(faults)}")
        return row, {**row.there, **{there: settings[here] for there, here in row.same.items()}}


def _unlike(row: Row, settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the settings here that are neither as `wanted` nor a number that has a setting there."""
    free = set(row.same.values()).difference(row.here)
    return [
        f"{name}={settings[name]!r}"
        for name, x in wanted.items()
        if (not isinstance(settings[name], float | int | None) if name in free else settings[name] != x)
    ]


def _how_many(found: tuple[Row, list[str]]) -> int:
    return len(found[1])


_APART = ("id", "groups", "lr_scheduler")

_MAY_BE_NONE = ("weight_decay", "l2", "momentum")
"""Settings in which None means 0."""


def _value(x: Any, name: str) -> Any:
    if x is None and name in _MAY_BE_NONE:
        return 0.0
    return x.item() if hasattr(x, "item") else x


def check_rate(optimizer: OptimizerBase) -> None:
    """Raise a ValueError if the learning rate follows a schedule."""
    if not isinstance(optimizer.lr_scheduler, ConstantScheduler):
        raise ValueError(
            f"the learning rate follows {optimizer.lr_scheduler}, which is not converted; set it to the rate of the "
            f"next step, set_params({{'lr': ..., 'lr_scheduler': None}}), and use a schedule of the other library"
        )


def check_no_groups(optimizer: OptimizerBase) -> None:
    """Raise a ValueError if there are groups."""
    if optimizer.groups:
        raise ValueError(f"groups={dict(optimizer.groups)!r} cannot be converted; make an optimizer for each group")


def here(row: Row, lr: float, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Convert slots from another library; those that it has."""
    found = {ours: on_host(theirs[name]) for ours, name in row.slots.items() if theirs.get(name) is not None}
    return {name: _scaled(row, name, x, lr, there=False) for name, x in found.items()}


def there(row: Row, lr: float, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Convert slots to another library."""
    return {row.slots[name]: _scaled(row, name, on_host(x), lr, there=True) for name, x in ours.items()}


def _scaled(row: Row, name: str, x: Any, lr: float, *, there: bool) -> Any:
    factor = row.factors.get(name, 1.0)
    if factor == "sign":
        return x if there else np.asarray(np.sign(x))
    if factor == "lr":
        if not lr:
            raise ValueError(
                f"slot {name!r} cannot be converted with lr=0, since one of the libraries multiplies it by the rate"
            )
        factor = lr
    assert not isinstance(factor, str)
    return np.asarray(x if factor == 1.0 else x / factor if there else x * factor)  # a product of shape () is a scalar


def warn_of_rate(row: Row, state: Iterable[Remembered]) -> None:
    """Warn if the learning rate is part of a slot here, and not of the slot there."""
    inside = {slot for known in state for slot in known.slots if row.factors.get(slot) == "lr"}
    if inside:
        warn(
            f"the learning rate is part of {inside.pop()} in {row.ours[0]} of xpopt, but not in {row.theirs} of the "
            f"other library; the steps are the same only while the learning rate is constant"
        )


def on_host(x: Any) -> Any:
    """Return the values of an array of any library in a NumPy array; those of 16 bits in float32."""
    library = library_of(x)
    (values,) = [np.asarray(x)] if library is None else library.to_numpy([x])
    return np.array(values, np.float32) if values.dtype.itemsize == 2 else np.array(values)


def made(
    row: Row, settings: Mapping[str, Any], state: Mapping[Hashable, Remembered], groups: Mapping[str, Any] = NOTHING
) -> OptimizerBase:
    """Return an optimizer with the state from another library, which moves to the devices of the parameters."""
    optimizer = make_optimizer({"id": row.ours[0], **settings, "groups": groups})
    own = optimizer.state_dict()
    header, arrays = own["header"], own["arrays"]
    for name, known in state.items():
        slots = {slot: {"shape": list(x.shape), "dtype": x.dtype.name} for slot, x in known.slots.items()}
        whole = {"shape": list(known.shape), "dtype": known.dtype, "updates": known.updates, "slots": slots}
        header["parameters"].append({"name": encode(name), **whole})
        arrays |= {array_key(name, slot): x for slot, x in known.slots.items()}
    header["cur_step"] = max((known.updates for known in state.values()), default=0)
    optimizer.load_state_dict(own)
    return optimizer


def state_of(optimizer: OptimizerBase, shapes: Mapping[Hashable, tuple[int, ...]]) -> dict[Hashable, Remembered]:
    """Return the state of an optimizer for the parameters of a model.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer.
    shapes : mapping
        The shapes of all parameters of the model, by name.

    Returns
    -------
    dict
        The state of each parameter, by name.

    Raises
    ------
    ValueError
        It is the state of another model. The message lists every reason.
    """
    state = optimizer.state_dict(copy=False)
    found = {}
    for row in state["header"]["parameters"]:
        name = decode(row["name"])
        slots = {slot: state["arrays"][array_key(name, slot)] for slot in row["slots"]}
        shape = next((tuple(x.shape) for x in slots.values() if x.shape), ()) if row["shape"] is None else row["shape"]
        found[name] = Remembered(tuple(shape), row["dtype"] or "", row["updates"], slots)
    check_names({name: known.shape for name, known in found.items()}, shapes)
    return found


def check_names(state: Mapping[Hashable, tuple[int, ...]], shapes: Mapping[Hashable, tuple[int, ...]]) -> None:
    """Raise a ValueError that lists every reason why a state does not belong to a model."""
    reasons = [f"the model has no parameter {show(name)}" for name in state if name not in shapes]
    reasons += [
        f"{show(name)} has shape {tuple(shapes[name])}, and its state has {tuple(shape)}"
        for name, shape in state.items()
        if name in shapes and tuple(shape) != tuple(shapes[name])
    ]
    if reasons:
        raise ValueError(f"the state is that of another model: {'; '.join(reasons)}")


def check_one_count(state: Iterable[Remembered]) -> int:
    """Return the number of updates of all parameters; raise a ValueError if the numbers differ."""
    counts = sorted({known.updates for known in state})
    if len(counts) > 1:
        raise ValueError(
            f"parameters have had different numbers of updates, {counts}; the other library has one count for all"
        )
    return counts[0] if counts else 0
