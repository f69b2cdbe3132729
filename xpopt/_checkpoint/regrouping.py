"""The patterns of groups after parameters have been given new names."""

from __future__ import annotations

import dataclasses
import glob
from collections import Counter
from collections.abc import Hashable, Mapping
from fnmatch import fnmatchcase

from .._arrays.tree import show, text_of
from .._settings.caller import warn
from .._settings.text import short
from .header import Grouped, Header, Parameter, named
from .renaming import Renaming


def regrouped(header: Header, renaming: Renaming, problems: list[str]) -> Header:
    """Return a header whose groups match new names.

    A pattern that is the name of a parameter gets its new name. Any other is taken for a name itself, of which a ``*``
    in the renaming takes what there is: with ``{"encoder/*": "enc/*"}``, ``encoder/w?`` becomes ``enc/w?``.

    Parameters
    ----------
    header : Header
        As it was written.
    renaming : Renaming
        New names for old ones.
    problems : list of str
        A line is added if two groups would have one pattern.

    Returns
    -------
    Header
        With other patterns.
    """
    names = {text_of(one.name): one.name for one in header.parameters}
    groups = tuple(
        one if one.pattern is None else one._replace(pattern=_renamed(one.pattern, renaming, names))
        for one in header.groups
    )
    count = Counter(one.pattern for one in named(groups))
    problems += [f"rename gives two groups the pattern {short(one)}" for one in count if count[one] > 1]
    return dataclasses.replace(header, groups=groups)


def _renamed(pattern: str, renaming: Renaming, names: Mapping[str, Hashable]) -> str:
    matched = {text: name for text, name in names.items() if fnmatchcase(text, pattern)}
    for text, name in matched.items():
        if pattern in (text, glob.escape(text)):
            return glob.escape(text_of(renaming(name)))
    parts = tuple(pattern.split("/"))  # what the names are is unknown where none of them has state
    nested = any(isinstance(name, tuple) for name in matched.values())
    for name in ([parts] if nested else [pattern]) if matched else [pattern, parts]:
        new = renaming(name)
        if new is not name:
            return text_of(new)
    return pattern


def warn_of_others(before: Header, after: Header, parameters: Mapping[Hashable, Parameter]) -> None:
    """Warn of parameters that are in another group under their new name than they were in under the old one.

    Parameters
    ----------
    before, after : Header
        Without and with patterns that match new names.
    parameters : mapping of hashable to Parameter
        What is loaded, by new name.
    """
    for name, parameter in parameters.items():
        old, new = _group_of(before.groups, parameter.name), _group_of(after.groups, name)
        if old != new:
            had, has = (_called(header.groups, k) for header, k in ((before, old), (after, new)))
            warn(
                f"{show(parameter.name)} was {had}, and is renamed to {show(name)}, which is {has}; if that is not "
                f"meant, set_params({{'groups': ...}}) changes it"
            )


def _group_of(groups: tuple[Grouped, ...], name: Hashable) -> int | None:
    text = text_of(name)
    return next((k for k, one in enumerate(named(groups)) if fnmatchcase(text, str(one.pattern))), None)


def _called(groups: tuple[Grouped, ...], k: int | None) -> str:
    return "in no group" if k is None else f"in the group {short(groups[k].pattern)}"
