"""Settings that are arrays: in a header a reference, and the numbers beside the slots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._arrays.elements import PerElement
from .header import Header

_REFERENCE = "array"


def as_reference(value: Any, arrays: dict[str, Any]) -> Any:
    """Return a setting as JSON has it, with a reference in the place of an array.

    Parameters
    ----------
    value : object
        The setting.
    arrays : dict of str to array
        Those of settings so far, by key; one is added. No slot has such a key, for its name is an identifier.

    Returns
    -------
    object
        ``{"array": key}`` for an array, also in a list or a dict.
    """
    if isinstance(value, PerElement):
        key = f"settings/{len(arrays)}"
        arrays[key] = np.asarray(value)
        return {_REFERENCE: key}
    if isinstance(value, list):
        return [as_reference(one, arrays) for one in value]
    if isinstance(value, dict):
        return {name: as_reference(one, arrays) for name, one in value.items()}
    return value


def with_arrays(header: Header, arrays: Mapping[str, Any], problems: list[str]) -> tuple[Header, set[str]]:
    """Return a header whose settings have arrays in the place of references.

    Parameters
    ----------
    header : Header
        As it was written.
    arrays : mapping of str to array
        What came with it.
    problems : list of str
        A line is added for each array that is missing.

    Returns
    -------
    header : Header
    keys : set of str
        Those of the arrays that it refers to.
    """
    keys: set[str] = set()

    def found(value: Any) -> Any:
        if isinstance(value, list):
            return [found(one) for one in value]
        if not isinstance(value, dict) or not value.keys() & {_REFERENCE, "id"}:  # a transform with arrays has one
            return value
        if value.keys() != {_REFERENCE} or not isinstance(value[_REFERENCE], str):
            return {name: found(one) for name, one in value.items()}
        key = value[_REFERENCE]
        keys.add(key)
        if key not in arrays:
            problems.append(f"array {key!r} is missing")
        return arrays.get(key)

    def settings(values: dict[str, Any]) -> dict[str, Any]:
        return {name: found(value) for name, value in values.items()}

    groups = tuple(
        one if one.settings is None else one._replace(settings=settings(one.settings)) for one in header.groups
    )
    return dataclasses.replace(header, settings=settings(header.settings), groups=groups), keys
