"""Where the leaves of a model lie in its containers, and what lies at the same place in others of the same kind."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.containers import child, is_container, items
from .._arrays.tree import show

Path = tuple[Hashable, ...]


def paths(tree: Any) -> dict[Hashable, Path]:
    """Return the keys that lead to each leaf, by its name."""
    found: dict[Hashable, Path] = {}
    _collect(tree, (), found)
    return found


def _collect(node: Any, path: Path, found: dict[Hashable, Path]) -> None:
    for key, value in items(node):
        here = (*path, key)
        if is_container(value):
            _collect(value, here, found)
        else:
            found[here if path else key] = here


def at(tree: Any, path: Path, name: Hashable) -> Mapping[str, Any]:
    """Return the state that lies at a path in slots; a ValueError says that there is none."""
    node = tree
    try:
        for key in path:
            node = child(node, key)
    except (KeyError, IndexError, TypeError):
        node = None
    if not isinstance(node, Mapping):
        raise ValueError(f"slots has no dict of arrays for {show(name)}; wanted what pure.init or pure.update returned")
    return node
