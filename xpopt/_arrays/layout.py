"""The leaves of one model, read and put back step after step: the shape of its containers is remembered."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .containers import fields_of, is_container, is_dataclass, is_registered, items, remade
from .tree import flatten


class Layout:
    """The names of a model's leaves, and the shape of the containers that they first came in.

    What is remembered is keys, types and lengths, and no leaf. Containers of that shape are read and built at once; any
    others, whatever they differ in, by the names of their leaves.

    Parameters
    ----------
    names : list of hashable
        The leaves, as `flatten` names them.
    """

    def __init__(self, names: list[Hashable]) -> None:
        self.names = names
        self._shape: _Shape | _Fields | None = None
        self._is_new = True

    def leaves(self, tree: Any) -> list[Any] | None:
        """Return the leaves of a tree in the order of `names`.

        Parameters
        ----------
        tree : object
            What may be a container of such leaves.

        Returns
        -------
        list or None
            None if it has others, or is no container. One of them may be a container, which the caller has to find out.
        """
        if isinstance(tree, dict) and list(tree) == self.names:
            return list(tree.values())
        shape, leaves = self._shape, list[Any]()
        if shape is not None and shape.read(tree, leaves):
            return leaves
        try:
            found = flatten(tree, "")
        except (TypeError, ValueError):  # to be raised where it can be told what it came as
            return None
        wanted = set(self.names)
        if found.keys() != wanted:
            found = {name: x for name, x in found.items() if x is not None or name in wanted}
        if found.keys() != wanted:
            return None
        if self._is_new and list(found) == self.names:
            self._shape, self._is_new = _shape_of(tree), False
        return list(map(found.get, self.names))

    def build(self, tree: Any, values: list[Any]) -> Any:
        """Return containers of the same kinds as `tree`, with other leaves, where that calls no class of them.

        Parameters
        ----------
        tree : container
            One whose `leaves` are there.
        values : list
            The new leaves, in the order of `names`.

        Returns
        -------
        container or None
            With the keys of `tree`; None where it is of other types or of another shape than the first.
        """
        if type(tree) is dict and list(tree) == self.names:
            return dict(zip(tree, values, strict=True))
        return None if self._shape is None else self._shape.build(tree, values)


class _Shape:
    """The shape of a container: its type, its keys or length, and the same of those inside.

    Parameters
    ----------
    node : dict, list or tuple
        The container; of these types, or a namedtuple.
    start : int
        How many leaves come before it.
    """

    __slots__ = ("_inside", "_keys", "_kind", "_size", "_start", "_stop")

    def __init__(self, node: Any, start: int) -> None:
        self._kind = kind = type(node)
        self._keys = list(node) if kind is dict else None
        self._size = len(node)
        self._start = self._stop = start
        self._inside: list[tuple[int, _Shape | _Fields]] = []  # by place
        for place, child in enumerate(node.values() if kind is dict else node):
            if is_container(child):
                shape = _shape_at(child, self._stop)
                self._inside.append((place, shape))
                self._stop = shape._stop
            else:
                self._stop += 1

    def read(self, node: Any, leaves: list[Any]) -> bool:
        """Append the leaves of a container; return False if it is of another shape."""
        if not self._is_of(node):
            return False
        children = node if self._keys is None else node.values()
        if not self._inside:
            leaves += children
            return True
        children, done = list(children), 0
        for place, shape in self._inside:
            leaves += children[done:place]
            if not shape.read(children[place], leaves):
                return False
            done = place + 1
        leaves += children[done:]
        return True

    def build(self, node: Any, values: list[Any]) -> Any:
        """Return a container like `node` with its part of all values; None if `node` is of another shape."""
        if not self._is_of(node):
            return None
        if self._inside:
            old = node if self._keys is None else list(node.values())
            children, done = [], self._start
            for place, shape in self._inside:
                children += values[done : shape._start]
                child = shape.build(old[place], values)
                if child is None:
                    return None
                children.append(child)
                done = shape._stop
            children += values[done : self._stop]
        else:
            children = values[self._start : self._stop]
        if self._keys is not None:
            return dict(zip(node, children, strict=True))  # with its own keys: True is equal to 1
        if self._kind is list:
            return children
        return tuple(children) if self._kind is tuple else self._kind._make(children)

    def _is_of(self, node: Any) -> bool:
        if type(node) is not self._kind:
            return False
        return len(node) == self._size if self._keys is None else list(node) == self._keys


class _Fields:
    """The shape of a dataclass: that of a list of what its fields hold.

    Parameters
    ----------
    node : dataclass
        The container.
    start : int
        How many leaves come before it.
    """

    __slots__ = ("_kind", "_list", "_names", "_start", "_stop")

    def __init__(self, node: Any, start: int) -> None:
        self._kind = type(node)
        self._names = fields_of(node)
        self._list = _Shape(self._children(node), start)
        self._start, self._stop = start, self._list._stop

    def read(self, node: Any, leaves: list[Any]) -> bool:
        """Append its leaves; return False if it is of another shape."""
        return self._is_of(node) and self._list.read(self._children(node), leaves)

    def build(self, node: Any, values: list[Any]) -> Any:
        """Return one like `node` with its part of all values; None if `node` is of another shape."""
        children = self._list.build(self._children(node), values) if self._is_of(node) else None
        return None if children is None else remade(node, dict(zip(self._names, children, strict=True)))

    def _is_of(self, node: Any) -> bool:
        return type(node) is self._kind and fields_of(node) == self._names

    def _children(self, node: Any) -> list[Any]:
        return [getattr(node, name) for name in self._names]


def _shape_at(node: Any, start: int) -> _Shape | _Fields:
    return _Fields(node, start) if is_dataclass(node) else _Shape(node, start)


def _shape_of(tree: Any) -> _Shape | _Fields | None:
    """Return the shape of a tree, or None if one of its containers is of a type that may hold more than its items."""
    return _shape_at(tree, 0) if _is_plain(tree) else None


def _is_plain(node: Any) -> bool:
    kind = type(node)
    is_plain = kind in (dict, list, tuple) or (isinstance(node, tuple) and hasattr(kind, "_make"))
    if not is_plain and (is_registered(node) or not is_dataclass(node)):
        return False
    return all(_is_plain(child) for _, child in items(node) if is_container(child))
