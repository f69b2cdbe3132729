"""New parameter names for old ones, by patterns; as fast for many patterns as for one."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any, NamedTuple


class _Pattern(NamedTuple):
    place: int  # among the patterns
    old: Hashable
    new: Hashable


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
        self._unused: dict[int, Hashable] = {}
        # which patterns can fit a name is looked up: by all of it, or by what stands in front of their first star
        self._whole: dict[Any, _Pattern] = {}
        self._starts: dict[tuple[int | None, int | None], dict[Any, list[_Pattern]]] = {}
        for place, (old, new) in enumerate(dict(patterns or {}).items()):
            stars = _stars(old)
            if stars != _stars(new):
                raise ValueError(
                    f"rename: {old!r} and {new!r} must have the same '*', since the text that each '*' matches is kept"
                )
            self._unused[place] = old
            pattern = _Pattern(place, old, new)
            if stars:
                size = _size_of_start(old)
                self._starts.setdefault(size, {}).setdefault(_start(old, *size), []).append(pattern)
            else:
                self._whole.setdefault(_typed(old), pattern)

    def __call__(self, name: Hashable) -> Hashable:
        """Return the new name, or `name` itself where no pattern fits."""
        for pattern in sorted(self._candidates(name)):
            found = _match(pattern.old, name)
            if found is not None:
                self._unused.pop(pattern.place, None)
                return _fill(pattern.new, iter(found))
        return name

    def problems(self) -> list[str]:
        """Return a line for each pattern that no name has fitted yet."""
        return [f"rename: {pattern!r} fits no name in the checkpoint" for pattern in self._unused.values()]

    def _candidates(self, name: Hashable) -> Iterator[_Pattern]:
        if self._whole and (pattern := self._whole.get(_typed(name))) is not None:
            yield pattern
        for size, by_start in self._starts.items():
            yield from by_start.get(_start(name, *size), ())


def _typed(name: Hashable) -> Any:
    """Return a key that only names of the same types share: 1 is not True."""
    if isinstance(name, tuple):
        return tuple(map(_typed, name))
    return (str if isinstance(name, str) else type(name), name)


def _size_of_start(pattern: Any) -> tuple[int | None, int | None]:
    """Return how much stands in front of the first star: so many parts of a tuple, and characters of the next."""
    if isinstance(pattern, str):
        return None, pattern.index("*")
    head, _ = _split(pattern)
    parts = next((i for i, part in enumerate(head) if _stars(part)), len(head))
    text = head[parts] if parts < len(head) else None
    return parts, text.index("*") if isinstance(text, str) else None


def _start(name: Any, parts: int | None, size: int | None) -> Any:
    """Return that much of a name, or None if it has not so much."""
    if parts is None:
        return name[:size] if isinstance(name, str) else None
    if not isinstance(name, tuple) or len(name) < parts:
        return None
    start = _typed(name[:parts])
    if size is None:
        return start
    text = name[parts] if parts < len(name) else None
    return (*start, text[:size]) if isinstance(text, str) else None


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
        return _match_text(pattern, name)
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


def _match_text(pattern: str, text: str) -> list[Any] | None:
    """Return what each star stands for, the first for as much as it can; the last pieces are found first."""
    first, *pieces = pattern.split("*")
    if not pieces:
        return [] if pattern == text else None
    last, end, found = pieces.pop(), len(text), []
    if len(first) + len(last) > end or not text.startswith(first) or not text.endswith(last):
        return None
    end -= len(last)
    for piece in reversed(pieces):
        at = text.rfind(piece, len(first), end)
        if at < 0:
            return None
        found.append(text[at + len(piece) : end])
        end = at
    return [text[len(first) : end], *reversed(found)]


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
