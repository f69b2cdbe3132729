"""Parameter names: as JSON and back, and as keys of arrays."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from reprlib import repr as short
from typing import Any

import numpy as np

from .._settings.ranges import LARGEST, LARGEST_TEXT

WANTED = "a checkpoint keeps names of None, bool, int, str, bytes and tuples of these"


_JSON = re.compile(r'["\[{0-9-]|(null|true|false)?\Z')
"""How a text begins that could be taken for JSON; or the whole of it."""

_CONTROL = re.compile("[\x00-\x1f\ud800-\udfff]")
"""What text in a file is escaped for, or cannot have."""


def encode(name: Hashable) -> Any:
    """Return a name as JSON has it: a tuple as an array, bytes as ``{"bytes": hexadecimal}``.

    Parameters
    ----------
    name : hashable
        The name of a parameter.

    Returns
    -------
    object
        What `decode` reads back.

    Raises
    ------
    TypeError
        The name is, or holds, an object of another type.
    ValueError
        It is, or holds, an int that no reader takes.
    """
    if type(name) is int and abs(name) > LARGEST:
        raise ValueError(f"parameter name {short(name)} is or holds an int beyond {LARGEST_TEXT}; use a smaller one")
    if name is None or type(name) in (bool, int, str):
        return name
    if type(name) is bytes:
        return {"bytes": name.hex()}
    if type(name) is tuple:
        return [encode(part) for part in name]
    raise TypeError(f"parameter name {name!r} is or holds a {type(name).__name__}; {WANTED}")


def decode(value: Any) -> Hashable:
    """Return the name that `encode` has written; a ValueError says that `value` is none."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is list:
        return tuple(decode(part) for part in value)
    if type(value) is dict and value.keys() == {"bytes"} and type(value["bytes"]) is str:
        return bytes.fromhex(value["bytes"])
    raise ValueError(f"{short(value)} is not a name; {WANTED}")


def check_hashes(names: Sequence[Hashable]) -> None:
    """Raise a ValueError for names made to have the same hash, with which a dict takes the square of their number."""
    hashes = np.sort(np.fromiter(map(hash, names), np.int64, len(names)))
    if (hashes[_ALIKE:] == hashes[:-_ALIKE]).any():
        raise ValueError(f"more than {_ALIKE} names have the same hash; no names do that by chance")


_ALIKE = 32


def array_key(name: Hashable, slot: str) -> str:
    """Return the flat name of one slot of one parameter, which no other slot has.

    Parameters
    ----------
    name : hashable
        The parameter. A string stands for itself, unless it could be taken for JSON or is no plain text; any other name
        is written as JSON.
    slot : str
        The slot, an identifier.

    Returns
    -------
    str
        ``W/mean``; ``["enc","w"]/mean`` for the name ``("enc", "w")``, and ``"3"/mean`` for the string ``"3"``.
    """
    if type(name) is not str or _JSON.match(name) or _CONTROL.search(name):
        import json  # here, for few names are written so

        name = json.dumps(encode(name), separators=(",", ":"))
    return f"{name}/{slot}"
