"""The header as JSON."""

from __future__ import annotations

from typing import Any

from .._settings.ranges import LARGEST, LARGEST_TEXT
from .._state.names import encode
from .._version import __version__
from .header import FORMAT, Grouped, Header, Schedule, plain
from .reading import from_json


def to_json(header: Header) -> dict[str, Any]:
    """Return a header as JSON has it, in dicts and lists of its own.

    Parameters
    ----------
    header : Header
        The header.

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
    current, gathered = header.current, header.gathered
    written = {
        "format_version": FORMAT,
        "xpopt_version": __version__,
        "rule": {"name": header.rule, "version": header.version},
        "groups": [{"match": None, "settings": dict(header.settings)}, *map(_group, header.groups)],
        "schedule": _schedule(header.schedule),
        "cur_step": header.cur_step,
        "skipped": header.skipped,
        "pass": current and {"rate": current.rate, "names": [encode(name) for name in current.names]},
        "parameters": [
            {
                "name": encode(p.name),
                "shape": None if p.shape is None else list(p.shape),
                "dtype": p.dtype,
                "updates": p.updates,
                "slots": {name: {"shape": list(x.shape), "dtype": x.dtype} for name, x in p.slots.items()},
            }
            for p in header.parameters
        ],
    }
    if gathered is not None:
        written["gathered"] = {"passes": gathered.passes, "names": [encode(name) for name in gathered.names]}
    if header.loss_scale is not None:
        written["loss_scale"] = header.loss_scale._asdict()
    if header.remembered:
        written["remembered"] = [
            {**one._asdict(), "state": _readable(one.state, f"what {one.number} remembers")}
            for one in header.remembered
        ]
    from_json(written, owned=True)  # nothing is written that could not be read
    return written


def _group(group: Grouped) -> dict[str, Any]:
    return {
        "match": group.pattern,
        "rule": None if group.rule is None else dict(zip(("name", "version"), group.rule, strict=True)),
        "settings": None if group.settings is None else dict(group.settings),
        "schedule": None if group.schedule is None else _schedule(group.schedule),
        "rate": group.rate,
    }


def _schedule(schedule: Schedule) -> dict[str, Any]:
    owner = schedule.name
    return {
        "name": owner,
        "hyperparameters": _readable(schedule.hyperparameters, f"{owner}.hyperparameters"),
        "state": _readable(schedule.state, f"{owner}.state()"),
    }


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
