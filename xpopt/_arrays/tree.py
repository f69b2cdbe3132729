"""Nested containers of arrays: their leaves by name, and containers of the same kind back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from .._settings.text import short
from .containers import is_container, items, like, may_lack

Path = tuple[Hashable, ...]

_PARAMETERS = ("params", "like")
"""The arguments in which None in a field of a class is no leaf. Among gradients it is one, of which there is none."""


def text_of(name: Hashable) -> str:
    """Write a parameter's name as patterns see it: ``W``, ``0``, and ``enc/w`` for the nested ``("enc", "w")``."""
    return "/".join(map(str, name)) if isinstance(name, tuple) and name else str(name)


def show(name: Hashable) -> str:
    """Write a parameter's name for a message: ``'W'``, ``0``, and ``'enc/w'`` for the nested ``("enc", "w")``."""
    joined = text_of(name) if isinstance(name, tuple) and name else name
    text = repr(joined)
    return text if len(text) <= 160 else short(joined)


def show_all(names: Iterable[Hashable]) -> str:
    """Write parameters' names for a message, no more than a few of them."""
    shown = [show(name) for name in names]
    return ", ".join(shown if len(shown) <= 8 else [*shown[:8], f"and {len(shown) - 8} more"])


def flatten(tree: Any, what: str) -> dict[Hashable, Any]:
    """Return the leaves of `tree` by name.

    Parameters
    ----------
    tree : container, nested at will
        What `is_container` says; everything else is a leaf.
    what : str
        The argument it came as, for the message.

    Returns
    -------
    dict
        A leaf of the outermost container is named by its key, index or field alone, any other by the tuple of keys that
        leads to it.

    Raises
    ------
    TypeError
        `tree` is no container.
    ValueError
        Two leaves have one name.
    """
    if not is_container(tree):
        wanted = f"wanted a mapping, list or tuple of arrays, or a dataclass{_way_out(tree, what)}"
        raise TypeError(f"{what} is a {type(tree).__name__}; {wanted}")
    leaves: dict[Hashable, Any] = {}
    _collect(tree, (), what, leaves)
    return leaves


def _way_out(tree: object, what: str) -> str:
    if hasattr(tree, "named_parameters"):
        leaf = "p.grad" if what == "grads" else "p"
        return f", such as {{name: {leaf} for name, p in model.named_parameters()}}"
    if hasattr(tree, "shape") or isinstance(tree, float):
        return " (for one array: update)"
    if isinstance(tree, Iterable) and not isinstance(tree, str | bytes):
        return "; convert it before the update, with dict() of names and arrays or list() of arrays"
    return ""


def _collect(node: Any, path: Path, what: str, leaves: dict[Hashable, Any]) -> None:
    # a function of its own: one that closes over itself would keep the arrays until garbage is collected
    for key, value in items(node):
        here = (*path, key)
        if is_container(value):
            _collect(value, here, what, leaves)
            continue
        if value is None and what in _PARAMETERS and may_lack(node):
            continue
        name = here if path else key
        if name in leaves:
            raise ValueError(f"{what} has two leaves named {show(name)}; rename one")
        leaves[name] = value


def matched(leaves: Mapping[Hashable, Any], others: dict[Hashable, Any], what: str) -> dict[Hashable, Any]:
    """Return `others` by the names of `leaves`, or raise a ValueError that lists the difference.

    Parameters
    ----------
    leaves : mapping
        The parameters by name.
    others : dict
        What goes with them. None may have another name: that of a parameter that is not there.
    what : str
        The argument that they came as.

    Returns
    -------
    dict
        Those of the parameters.

    Raises
    ------
    ValueError
        Some are missing, or there are others.
    """
    if leaves.keys() != others.keys():
        known = {name: x for name, x in others.items() if x is not None or name in leaves}
        if leaves.keys() == known.keys():
            return known
        missing = show_all(name for name in leaves if name not in others)
        extra = show_all(name for name in others if name not in leaves)
        parts = [text for text in (missing and f"lacks {missing}", extra and f"has {extra}, not in params") if text]
        raise ValueError(f"{what} {' and '.join(parts)}; the names must be those of params")
    return others


def check_indices(tree: Any, leaves: Mapping[Hashable, Any], known: Mapping[Hashable, Any]) -> None:
    """Raise if a sequence has become shorter than the indices that are known by name.

    Parameters
    ----------
    tree : container
        The parameters.
    leaves : mapping
        Its leaves by name.
    known : mapping
        By the names of parameters, what has state.

    Raises
    ------
    ValueError
        A known name leads to an index behind the end of a list or tuple in `tree`.
    """
    others = known.keys() - leaves.keys()
    if not others:
        return
    lengths: dict[Path, int] = {}
    _measure(tree, (), lengths)
    gone = [name for name in known if name in others and _is_behind(name, lengths)]
    if gone:
        raise ValueError(
            f"params has no {show_all(gone)}, which has state: a list or tuple has become "
            f"shorter. The names are indices, so parameters after one that was removed would get the state "
            f"of others. Name the parameters, in a dict, or delete that state with del opt.cache[{gone[0]!r}]"
        )


def _measure(node: Any, path: Path, lengths: dict[Path, int]) -> None:
    if isinstance(node, list | tuple):
        lengths[path] = len(node)
    for key, value in items(node):
        if is_container(value):
            _measure(value, (*path, key), lengths)


def _is_behind(name: Hashable, lengths: Mapping[Path, int]) -> bool:
    path = name if isinstance(name, tuple) and len(name) > 1 else (name,)
    return any(type(key) is int and key >= lengths.get(path[:depth], key + 1) for depth, key in enumerate(path))


def rebuild(tree: Any, leaf: Callable[[Hashable], Any], path: Path = ()) -> Any:
    """Return containers of the same kinds as `tree` with ``leaf(name)`` for every leaf; they lie at `path`."""
    values: dict[Hashable, Any] = {}
    for key, value in items(tree):
        here = (*path, key)
        if value is None and may_lack(tree):
            values[key] = None
        else:
            values[key] = rebuild(value, leaf, here) if is_container(value) else leaf(here if path else key)
    return like(tree, values)
