"""Parameter names: as JSON and back, as keys of arrays, and renamed by patterns."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping
from reprlib import repr as short
from typing import Any

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
    """
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
    raise ValueError(f"{short(value)} is no name; {WANTED}")


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
        name = json.dumps(encode(name), separators=(",", ":"))
    return f"{name}/{slot}"


class Renaming:
    """New names for old ones, by patterns.

    Parameters
    ----------
    patterns : mapping of hashable to hashable, optional
        Each a name, and what it becomes. A ``*`` in a string stands for any text, and a last ``"*"`` in a tuple for the
        rest of it; what they stood for comes again in the new name, in order. The first pattern that fits is taken.

    Raises
    ------
    TypeError, ValueError
        No mapping, or stars on one side that have no partner on the other.
    """

    def __init__(self, patterns: Mapping[Hashable, Hashable] | None = None) -> None:
        if patterns is not None and not isinstance(patterns, Mapping):
            raise TypeError(f"rename is a {type(patterns).__name__}; wanted a dict of names, {{'old*': 'new*'}}")
        self.patterns = dict(patterns or {})
        for old, new in self.patterns.items():
            if _stars(old) != _stars(new):
                raise ValueError(f"rename: {old!r} and {new!r} differ in their '*', and what these stand for is kept")
        self.unused = list(self.patterns)

    def __call__(self, name: Hashable) -> Hashable:
        """Return the new name, or `name` itself where no pattern fits."""
        for old, new in self.patterns.items():
            found = _match(old, name)
            if found is not None:
                self.unused = [pattern for pattern in self.unused if pattern is not old]
                return _fill(new, iter(found))
        return name

    def problems(self) -> list[str]:
        """Return a line for each pattern that no name has fitted yet."""
        return [f"rename: {pattern!r} fits no name in the checkpoint" for pattern in self.unused]


def _stars(pattern: Hashable) -> list[str]:
    """Return what each star in `pattern` stands for: ``"text"``, or ``"rest"`` of a tuple."""
    if isinstance(pattern, tuple):
        head, rest = _split(pattern)
        return [*(star for part in head for star in _stars(part)), *rest]
    return ["text"] * pattern.count("*") if isinstance(pattern, str) else []


def _split(pattern: tuple[Hashable, ...]) -> tuple[tuple[Hashable, ...], list[str]]:
    """Return the parts of a tuple but for a last star, and ``["rest"]`` for that."""
    return (pattern[:-1], ["rest"]) if pattern and pattern[-1] == "*" else (pattern, [])


def _match(pattern: Hashable, name: Hashable) -> list[Any] | None:
    """Return what the stars in `pattern` stand for, or None if it is not the pattern of `name`."""
    if isinstance(pattern, str) and isinstance(name, str):
        fits = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), name, re.DOTALL)
        return None if fits is None else list(fits.groups())
    if not isinstance(pattern, tuple) or not isinstance(name, tuple):
        return [] if type(pattern) is type(name) and pattern == name else None
    head, rest = _split(pattern)
    if len(name) <= len(head) if rest else len(name) != len(head):
        return None
    found: list[Any] = []
    for part, here in zip(head, name, strict=False):
        inside = _match(part, here)
        if inside is None:
            return None
        found += inside
    return [*found, name[len(head) :]] if rest else found


def _fill(pattern: Hashable, found: Iterator[Any]) -> Hashable:
    """Return `pattern` with its stars replaced, in order."""
    if isinstance(pattern, tuple):
        head, rest = _split(pattern)
        parts = tuple(_fill(part, found) for part in head)
        return (*parts, *next(found)) if rest else parts
    if isinstance(pattern, str):
        first, *others = pattern.split("*")
        return first + "".join(next(found) + piece for piece in others)
    return pattern
