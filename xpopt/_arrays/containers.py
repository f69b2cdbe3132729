"""What holds arrays: mappings, lists, tuples, dataclasses, and classes that JAX or PyTorch knows as pytrees."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np


class Opened(NamedTuple):
    """A container that is no mapping, list or tuple, taken apart."""

    keys: Sequence[Hashable]
    children: Sequence[Any]
    make: Callable[[list[Any]], Any]
    """Return one of the same class with other children, in this order."""


def is_container(tree: object) -> bool:
    """Whether `tree` is taken apart into what it holds; everything else is a leaf."""
    kind = type(tree)
    if kind is np.ndarray or tree is None or kind is float:
        return False
    return isinstance(tree, dict | list | tuple | Mapping) or _registered(tree) is not None or is_dataclass(tree)


def may_lack(node: Any) -> bool:
    """Whether None stands in a container for a parameter that is not there: in fields of classes."""
    return not isinstance(node, Mapping | list | tuple)


def items(node: Any) -> Iterable[tuple[Hashable, Any]]:
    """Return what a container holds, each with its key, index or the name of its field."""
    if isinstance(node, Mapping):
        return node.items()
    if isinstance(node, list | tuple):
        return enumerate(node)
    opened = _opened(node)
    return zip(opened.keys, opened.children, strict=True)


def child(node: Any, key: Hashable) -> Any:
    """Return what a container holds under a key; a LookupError if there is none."""
    if isinstance(node, Mapping | list | tuple):
        return node[key]  # type: ignore[call-overload]
    if _registered(node) is None and isinstance(key, str) and key in _described(type(node)).open:
        return getattr(node, key)
    return dict(items(node))[key]


def like(node: Any, values: dict[Any, Any]) -> Any:
    """Return a container of the class of `node` that holds other values, which are given by the keys of `node`."""
    if type(node) is dict:
        return values
    if isinstance(node, dict):
        twin = copy.copy(node)  # keeps a defaultdict's factory
        for key, value in values.items():  # not `update`, which a Counter adds with
            twin[key] = value
        return twin
    if isinstance(node, Mapping):
        return type(node)(values)  # type: ignore[call-arg]
    if isinstance(node, list | tuple):
        return getattr(node, "_make", type(node))(values.values())
    return _opened(node).make(list(values.values()))


def calls_classes(tree: Any) -> bool:
    """Whether `like` calls classes of the caller's to make a tree anew, which may copy or read what they get."""
    kind = type(tree)
    is_ours = is_dataclass(tree) or (isinstance(tree, list | tuple) and hasattr(kind, "_make"))
    if (kind.__module__ not in ("builtins", "collections") and not is_ours) or is_registered(tree):
        return True
    return any(calls_classes(x) for _, x in items(tree) if is_container(x))


def _opened(node: Any) -> Opened:
    registered = _registered(node)
    if registered is not None:
        return registered(node)
    names = [name for name, x in _values(node) if x is None or holds_leaf(x)]
    children = [getattr(node, name) for name in names]
    return Opened(names, children, lambda values: remade(node, dict(zip(names, values, strict=True))))


# What is registered


def is_registered(node: object) -> bool:
    """Whether `node` is of a class that JAX or PyTorch knows as a pytree, and none of Python's own."""
    return _registered(node) is not None


def _registered(node: Any) -> Callable[[Any], Opened] | None:
    """Return what takes an object apart that JAX or PyTorch knows as a pytree, if they are imported; else None."""
    kind = type(node)
    # Python's own mean the same whatever has been imported; of some arrays, such as sparse ones, JAX knows the parts
    if kind.__module__ in ("builtins", "collections", "numpy") or _is_array(node):
        return None
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    if tree_util is not None and not tree_util.all_leaves([node]):
        return _open_for_jax
    pytree = sys.modules.get("torch.utils._pytree")
    return _open_for_torch if pytree is not None and kind in getattr(pytree, "SUPPORTED_NODES", ()) else None


def _open_for_jax(node: Any) -> Opened:
    tree_util: Any = sys.modules["jax"].tree_util
    found, structure = tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    keys = [_plain(path[0]) for path, _ in found]
    return Opened(keys, [x for _, x in found], lambda values: tree_util.tree_unflatten(structure, values))


def _open_for_torch(node: Any) -> Opened:
    known = sys.modules["torch.utils._pytree"].SUPPORTED_NODES[type(node)]
    keys: Any
    if known.flatten_with_keys_fn is None:
        children, context = known.flatten_fn(node)
        keys = range(len(children))
    else:
        pairs, context = known.flatten_with_keys_fn(node)
        keys, children = [_plain(key) for key, _ in pairs], [x for _, x in pairs]
    return Opened(keys, children, lambda values: known.unflatten_fn(values, context))


def _plain(key: Any) -> Hashable:
    """Return the name, key or index that a library wraps."""
    found: Hashable = next((getattr(key, field) for field in ("name", "key", "idx") if hasattr(key, field)), key)
    return found


# Dataclasses


def is_dataclass(x: object) -> bool:
    """Whether `x` is an object of a dataclass, and no array."""
    return hasattr(type(x), "__dataclass_fields__") and not _is_array(x)


def fields_of(node: Any) -> list[str]:
    """Return the names of the fields of a dataclass that hold arrays or numbers, or containers of such.

    Others are carried along: text, integers, functions, containers of these alone, and fields that say of themselves
    that they are ``static``, or ``pytree_node=False``.

    Parameters
    ----------
    node : object
        Of a dataclass.

    Returns
    -------
    list of str
        In the order of the fields.

    Raises
    ------
    ValueError
        A field that its class computes holds an array.
    """
    return [name for name, x in _values(node) if holds_leaf(x)]


def _values(node: Any) -> Iterable[tuple[str, Any]]:
    """Return what the fields of a dataclass hold that may be updated."""
    for name, is_given in _described(type(node)).open.items():
        x = getattr(node, name, "")
        if not is_given and holds_leaf(x):
            raise ValueError(
                f"{type(node).__name__}.{name} holds numbers, and its class computes it (init=False), so that it "
                f"would not follow the arrays; make it a property, or set metadata={{'static': True}} if it is constant"
            )
        yield name, x


def holds_leaf(x: Any) -> bool:
    """Whether `x` is an array or a number of floating point, or a container of one."""
    kind = type(x)
    if kind is np.ndarray:
        return True
    if kind in _NO_LEAVES:
        return False
    if isinstance(x, float | complex) or _is_array(x):
        return True
    return is_container(x) and any(holds_leaf(value) for _, value in items(x))


_NO_LEAVES = {str, int, bool, type(None)}  # what mostly stands in other fields


def remade(node: Any, values: Mapping[str, Any], kind: type[Any] | None = None) -> Any:
    """Return another object of a dataclass, or of a class below it: these values in some fields, others as before."""
    # nothing of the class is called, such as its __post_init__: arrays are filled after they have been handed out
    twin = object.__new__(kind or type(node))
    for name in _described(type(node)).names:
        if name in values:
            object.__setattr__(twin, name, values[name])  # also of a frozen one
        elif hasattr(node, name):
            object.__setattr__(twin, name, getattr(node, name))
    return twin


class _Described(NamedTuple):
    """The fields of a dataclass."""

    names: list[str]
    open: dict[str, bool]
    """Those that may hold what is updated, and whether the caller sets them."""


_known: MutableMapping[type[Any], _Described] = WeakKeyDictionary()


def _described(cls: type[Any]) -> _Described:
    found = _known.get(cls)
    if found is None:
        fields = dataclasses.fields(cls)
        is_open = [not one.metadata.get("static", False) and one.metadata.get("pytree_node", True) for one in fields]
        kept = {one.name: one.init for one, kept in zip(fields, is_open, strict=True) if kept}
        found = _known[cls] = _Described([one.name for one in fields], kept)
    return found


def _is_array(x: object) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, type)
