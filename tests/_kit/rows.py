"""Which rows of a table run on which libraries: all on NumPy, and elsewhere a few that differ in kind.

A rule is the same text everywhere, and so is all that surrounds it. What a library adds are its arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from .table import ROWS

FULL = ("numpy", "cupy")
"""Backends that run all rows: they have engines of their own."""

on_numpy = pytest.mark.backends(*FULL)
not_read_only = pytest.mark.backends("numpy", "array-api-strict", "torch", "jax", "jax-x64", "dask", "cupy")
"""For tests to which inputs that cannot be written add nothing."""

everywhere_else = pytest.mark.backends("numpy-readonly", "array-api-strict", "torch", "jax", "jax-x64", "dask")

KINDS = tuple(row.label for row in ROWS if row.promises == "everywhere")
"""Algorithms that differ in kind: without state, with an array, with one under a root, and with two and a count."""


def rows(table: Mapping[str, Any], elsewhere: Collection[str]) -> list[Any]:
    """Return the rows as parameters, of which backends other than `FULL` run those in `elsewhere` alone."""
    missing = set(elsewhere) - set(table)
    assert not missing, f"no such rows: {missing}"
    return [
        pytest.param(row, id=name, marks=() if name in elsewhere else pytest.mark.row_of_numpy)
        for name, row in table.items()
    ]
