"""What is the same in another library: algorithms, their settings, and what they remember."""

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
    """That an algorithm of a host computes what an optimizer of xpopt does, with these settings.

    `ours` are classes, of which the first one is made. `same` are settings there by which they are called here; `there`
    and `here` what the others must be for the formulas to be one, and where nothing is said, their defaults. `slots`
    are names there by those here. Of `factors`, a number, or ``"lr"``, is what the values here are of those there;
    ``"sign"`` says that only their signs matter. `counted` is the name there of the number of updates, if there is one.
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
    """What is remembered of a parameter, in NumPy arrays by the names of slots here."""

    shape: tuple[int, ...]
    dtype: str
    updates: int
    slots: Mapping[str, Any]


class Host(NamedTuple):
    """What is known of a library.

    `refused` says by algorithm why it is not in `rows`, `notes` by setting what it does to the formula. Settings that
    are `unread` are about how it runs.
    """

    name: str
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    notes: Mapping[str, str]
    unread: frozenset[str]

    def read(self, theirs: str, settings: Mapping[str, Any]) -> tuple[Row, dict[str, Any]]:
        """Return the row of an algorithm there, and the settings here."""
        rows = [row for row in self.rows if row.theirs == theirs]
        if not rows:
            why = self.refused.get(theirs, "no optimizer here is known to compute the same")
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
        """Return the row of an optimizer with these `hyperparameters`, and the settings there."""
        rows = [row for row in self.rows if ours in row.ours]
        if not rows:
            known = ", ".join(dict.fromkeys(name for row in self.rows for name in row.ours))
            raise ValueError(f"{self.name} is not known to have what {ours} computes; wanted one of {known}")
        defaults = {name: x for name, x in make_optimizer(ours).hyperparameters.items() if name not in _APART}
        row, faults = min(((row, _unlike(row, settings, {**defaults, **row.here})) for row in rows), key=_how_many)
        if faults:
            raise ValueError(f"{self.name} is not known to have what {ours} computes with {', '.join(faults)}")
        return row, {**row.there, **{there: settings[here] for there, here in row.same.items()}}


def _unlike(row: Row, settings: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return what of the settings here is neither as `wanted` nor a number that is a setting there."""
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
"""Settings of which None is 0 where it may be."""


def _value(x: Any, name: str) -> Any:
    if x is None and name in _MAY_BE_NONE:
        return 0.0
    return x.item() if hasattr(x, "item") else x


def check_rate(optimizer: OptimizerBase) -> None:
    """Raise a ValueError where the rate is not a number that the other library could have."""
    if not isinstance(optimizer.lr_scheduler, ConstantScheduler):
        raise ValueError(
            f"the rate follows {optimizer.lr_scheduler}, which stays here; set the rate of the next step, "
            f"set_params({{'lr': ..., 'lr_scheduler': None}}), and give the other library a schedule of its own"
        )


def check_no_groups(optimizer: OptimizerBase) -> None:
    """Raise a ValueError where parameters have settings of their own."""
    if optimizer.groups:
        raise ValueError(f"groups={dict(optimizer.groups)!r} cannot be converted; make an optimizer for each of them")


def here(row: Row, lr: float, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return slots as they are here: those that there are."""
    found = {ours: on_host(theirs[name]) for ours, name in row.slots.items() if theirs.get(name) is not None}
    return {name: _scaled(row, name, x, lr, there=False) for name, x in found.items()}


def there(row: Row, lr: float, ours: Mapping[str, Any]) -> dict[str, Any]:
    """Return slots as they are there."""
    return {row.slots[name]: _scaled(row, name, on_host(x), lr, there=True) for name, x in ours.items()}


def _scaled(row: Row, name: str, x: Any, lr: float, *, there: bool) -> Any:
    factor = row.factors.get(name, 1.0)
    if factor == "sign":
        return x if there else np.asarray(np.sign(x))
    if factor == "lr":
        if not lr:
            raise ValueError(f"a {name} cannot be converted with a learning rate of 0, which one of them has inside")
        factor = lr
    assert not isinstance(factor, str)
    return np.asarray(x if factor == 1.0 else x / factor if there else x * factor)  # products of shape () are scalars


def warn_of_rate(row: Row, state: Iterable[Remembered]) -> None:
    """Warn where the learning rate is inside of what is remembered here, and outside of it there."""
    inside = {slot for known in state for slot in known.slots if row.factors.get(slot) == "lr"}
    if inside:
        warn(
            f"the learning rate is inside the {inside.pop()} of {row.ours[0]}, and outside of it in {row.theirs}: they "
            f"are the same while it does not change"
        )


def on_host(x: Any) -> Any:
    """Return the values of an array of any library as one of NumPy, with 16 bits in 32."""
    library = library_of(x)
    (values,) = [np.asarray(x)] if library is None else library.to_numpy([x])
    return np.array(values, np.float32) if values.dtype.itemsize == 2 else np.array(values)


def made(
    row: Row, settings: Mapping[str, Any], state: Mapping[Hashable, Remembered], groups: Mapping[str, Any] = NOTHING
) -> OptimizerBase:
    """Return an optimizer with the state that another library had, which goes to where the parameters are."""
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
    """Return what an optimizer remembers of the parameters of a model.

    Parameters
    ----------
    optimizer : OptimizerBase
        The optimizer.
    shapes : mapping
        Of all parameters of the model, by name.

    Returns
    -------
    dict
        By name.

    Raises
    ------
    ValueError
        It is the state of another model; every reason is listed.
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
    """Raise a ValueError with every reason why there is state of other parameters than those of a model."""
    reasons = [f"there is no parameter {show(name)}" for name in state if name not in shapes]
    reasons += [
        f"{show(name)} is of shape {tuple(shapes[name])}, and its state is of {tuple(shape)}"
        for name, shape in state.items()
        if name in shapes and tuple(shape) != tuple(shapes[name])
    ]
    if reasons:
        raise ValueError(f"the state is of another model: {'; '.join(reasons)}")


def check_one_count(state: Iterable[Remembered]) -> int:
    """Return how many updates all parameters have had; a ValueError says that they have had different ones."""
    counts = sorted({known.updates for known in state})
    if len(counts) > 1:
        raise ValueError(f"parameters have had {counts} updates, and there is one count for all in the other library")
    return counts[0] if counts else 0
