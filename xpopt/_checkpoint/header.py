"""The header: everything of an optimizer's state but the arrays, as JSON and back. Nothing in it is taken on trust."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import SUPPORTED
from .._arrays.tree import show
from .._settings.ranges import LARGEST, LARGEST_TEXT
from .._state.names import check_hashes, decode, encode
from .._version import __version__

FORMAT = 1
"""The version of the format; a reader of one version refuses any newer one."""


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


class Schedule(NamedTuple):
    """A schedule: its class name, its keywords, and what it remembers."""

    name: str
    hyperparameters: dict[str, Any]
    state: dict[str, Any]


class Current(NamedTuple):
    """The pass that is under way: the rate that holds for all of it, and the parameters that it has reached."""

    rate: float
    names: tuple[Hashable, ...]


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
    schedule : Schedule
        The schedule of the learning rate.
    cur_step : int
        The step count, at least 0.
    skipped : int
        How many steps were left out, at least 0.
    current : Current or None
        The pass that is under way.
    parameters : tuple of Parameter
        In the order of the cache.
    """

    rule: str
    version: int
    settings: dict[str, Any]
    schedule: Schedule
    cur_step: int
    skipped: int
    current: Current | None
    parameters: tuple[Parameter, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the header as JSON has it, in dicts and lists of its own.

        Returns
        -------
        dict
            What `from_json` reads.

        Raises
        ------
        TypeError
            A name, or a value of the schedule, is of a kind that cannot be kept.
        ValueError
            An int in one of them is too large.
        CheckpointError
            What came out could not be read.
        """
        owner, schedule, current = self.schedule.name, self.schedule, self.current
        header = {
            "format_version": FORMAT,
            "xpopt_version": __version__,
            "rule": {"name": self.rule, "version": self.version},
            "groups": [{"match": None, "settings": dict(self.settings)}],
            "schedule": {
                "name": schedule.name,
                "hyperparameters": _readable(schedule.hyperparameters, f"{owner}.hyperparameters"),
                "state": _readable(schedule.state, f"{owner}.state()"),
            },
            "cur_step": self.cur_step,
            "skipped": self.skipped,
            "pass": current and {"rate": current.rate, "names": [encode(name) for name in current.names]},
            "parameters": [
                {
                    "name": encode(p.name),
                    "shape": None if p.shape is None else list(p.shape),
                    "dtype": p.dtype,
                    "updates": p.updates,
                    "slots": {name: {"shape": list(x.shape), "dtype": x.dtype} for name, x in p.slots.items()},
                }
                for p in self.parameters
            ],
        }
        self.from_json(header, owned=True)  # nothing is written that could not be read
        return header

    @classmethod
    def from_json(cls, value: Any, *, owned: bool) -> Header:
        """Read what `to_json` wrote.

        Parameters
        ----------
        value : object
            Whatever came.
        owned : bool
            Whether it was read from a file: then it is made of JSON types, and no caller holds it.

        Returns
        -------
        Header
            In containers that no caller holds.

        Raises
        ------
        CheckpointError
            It is no header, or one of a newer format.
        """
        try:
            check_format(value)
            return cls._read(value if owned else plain(value, "it"))
        except RecursionError:
            raise CheckpointError("the header is nested too deeply") from None
        except (TypeError, ValueError) as error:
            raise error if isinstance(error, CheckpointError) else CheckpointError(f"the header: {error}") from None

    @classmethod
    def _read(cls, value: Any) -> Header:
        if type(value) is dict and "hyperparameters" in value:  # written before there were groups
            value = {**value, "groups": [{"match": None, "settings": value["hyperparameters"]}]}
            del value["hyperparameters"]
        _, _, rule, groups, schedule, cur_step, skipped, current, parameters = _fields(value, "it", _KEYS)
        name, version = _fields(rule, "rule", ("name", "version"))
        owner, keywords, state = _fields(schedule, "schedule", ("name", "hyperparameters", "state"))
        if current is not None:
            rate, names = _fields(current, "pass", ("rate", "names"))
            reached = tuple(decode(one) for one in _kind(names, list, "names"))
            check_hashes(reached)
            if len(set(reached)) != len(reached):
                raise ValueError(f"pass names {short(reached)}, one of them twice")
            current = Current(_kind(rate, float, "rate"), reached)
        described = tuple(_parameter(one) for one in _kind(parameters, list, "parameters"))
        check_hashes([parameter.name for parameter in described])
        return cls(
            _kind(name, str, "rule name"),
            _count(version, "rule version"),
            _settings(groups),
            Schedule(
                _kind(owner, str, "schedule name"),
                _kind(keywords, dict, "schedule hyperparameters"),
                _kind(state, dict, "schedule state"),
            ),
            _count(cur_step, "cur_step"),
            _count(skipped, "skipped"),
            current,
            described,
        )


_KEYS = (
    *("format_version", "xpopt_version", "rule", "groups"),
    *("schedule", "cur_step", "skipped", "pass", "parameters"),
)
_PARAMETER_KEYS = ("name", "shape", "dtype", "updates", "slots")


def header_and_arrays(state: Any) -> tuple[Any, Mapping[str, Any]]:
    """Return the header and the arrays of what `OptimizerBase.state_dict` returned."""
    if not isinstance(state, Mapping) or state.keys() != {"header", "arrays"}:
        raise CheckpointError("wanted what state_dict returns, a dict of 'header' and 'arrays'")
    if not isinstance(state["arrays"], Mapping):
        raise CheckpointError(f"'arrays' is a {type(state['arrays']).__name__}; wanted a dict of arrays")
    return state["header"], state["arrays"]


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


def _readable(value: Any, place: str) -> Any:
    """Return `plain`, or raise a ValueError if there is an int in it that no reader takes."""
    copied = plain(value, place)
    waiting = [copied]
    while waiting:
        one = waiting.pop()
        if type(one) is int and abs(one) > LARGEST:
            raise ValueError(f"{place} has an int beyond {LARGEST_TEXT}; a checkpoint keeps smaller ones")
        waiting += one if type(one) is list else one.values() if type(one) is dict else ()
    return copied


def _parameter(value: Any) -> Parameter:
    name, shape, dtype, updates, slots = _fields(value, "a parameter", _PARAMETER_KEYS)
    name = decode(name)
    what = show(name)
    a_size, a_slot = f"a size of {what}", f"a slot of {what}"  # once: a name may be as long as the file
    if shape is not None:
        shape = tuple(_count(size, a_size) for size in _kind(shape, list, f"shape of {what}"))
    if dtype is not None and dtype not in SUPPORTED:
        raise ValueError(f"dtype of {what} is {short(dtype)}; wanted one of {', '.join(SUPPORTED)}")
    if type(slots) is list:  # written before slots had a shape and dtype
        if len({_kind(slot, str, a_slot) for slot in slots}) != len(slots):
            raise ValueError(f"slots of {what} are {short(slots)}; wanted unlike names")
        slots = {slot: Slot(shape or (), None) for slot in slots}
    else:
        slots = {slot: _slot(x, a_size, a_slot) for slot, x in _kind(slots, dict, f"slots of {what}").items()}
    if slots and shape is None:
        raise ValueError(f"slots of {what} are {short(list(slots))}, of shape None; wanted a shape")
    return Parameter(name, shape, dtype, _count(updates, f"updates of {what}"), slots)


def _slot(value: Any, a_size: str, a_slot: str) -> Slot:
    shape, dtype = _fields(value, a_slot, ("shape", "dtype"))
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype of {a_slot} is {short(dtype)}; wanted float32 or float64")
    return Slot(tuple(_count(size, a_size) for size in _kind(shape, list, f"shape of {a_slot}")), dtype)


def _settings(groups: Any) -> dict[str, Any]:
    """Return the settings of all parameters; settings of some alone are for newer readers."""
    described = [_fields(group, "a group", ("match", "settings")) for group in _kind(groups, list, "groups")]
    if len(described) != 1 or described[0][0] is not None:
        raise ValueError(f"groups are {short(groups)}; wanted one, for all parameters: update xpopt")
    settings: dict[str, Any] = _kind(described[0][1], dict, "settings")
    return settings


def _fields(value: Any, place: str, keys: tuple[str, ...]) -> list[Any]:
    if type(value) is not dict or value.keys() != set(keys):
        raise ValueError(f"{place} is {short(value)}; wanted a dict of {', '.join(keys)}")
    return [value[key] for key in keys]


def _kind(value: Any, kind: type[Any], place: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{place} is {short(value)}; wanted a {kind.__name__}")
    return value


def _count(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= LARGEST:
        what = f"beyond {LARGEST_TEXT}" if type(value) is int and value > LARGEST else short(value)
        raise ValueError(f"{place} is {what}; wanted an int of at least 0 and at most {LARGEST_TEXT}")
    return value
