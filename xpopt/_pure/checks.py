"""What a pure form refuses: options that need a host in the midst of a step, and arrays that are not its model's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.parameter import check_dtype, check_kinds, dtype_text
from .._arrays.tree import show, show_all
from .._state.settings import Settings
from .leaf import SKIPPED, Leaf


def check_options(settings: Settings) -> None:
    """Raise a ValueError that names an option with which there is no pure form."""
    owner = f"{settings.cls.__name__} has no pure form with"
    if settings.values["nonfinite"] == "raise":
        raise ValueError(f"{owner} nonfinite='raise', since the host does not see the gradients; use nonfinite='skip'")
    if settings.accumulate > 1:
        raise ValueError(
            f"{owner} accumulate={settings.accumulate}, since each update is the same function; sum the "
            f"gradients before update, and pass their mean"
        )
    if settings.dynamic is not None:
        raise ValueError(
            f"{owner} {settings.dynamic}, since its scale is computed on the host; use a number, loss_scale=1024.0"
        )


def library_for(param: Any, name: Hashable, before: Library | None) -> Library:
    """Return the library of a parameter; a TypeError says that there is none, or another one than before."""
    library = library_of(param)
    if library is None:
        raise TypeError(f"parameter {show(name)} is a {type(param).__name__}; wanted an array")
    check_dtype(library, param, f"parameter {show(name)}")
    if before is not None and library is not before:
        raise TypeError(
            f"parameter {show(name)} is an array of {library.name}, another one of {before.name}; a pure form takes "
            f"arrays of one library"
        )
    return library


def check_names(known: Mapping[Hashable, Leaf], given: Mapping[Hashable, Any]) -> None:
    """Raise a ValueError unless the parameters have the names that they had at first."""
    if known.keys() != given.keys():
        missing, extra = known.keys() - given.keys(), given.keys() - known.keys()
        parts = [f"lacks {show_all(missing)}"] * bool(missing) + [f"has {show_all(extra)}"] * bool(extra)
        raise ValueError(f"params {' and '.join(parts)}; the names must be those that were passed to pure.init")


def check_given(leaf: Leaf, param: Any, grad: Any) -> None:
    """Raise unless a parameter is as it was at first, and its gradient goes with it."""
    what, library, spec = show(leaf.name), leaf.library, leaf.spec
    if library_of(param) is not library or param.dtype != spec.dtype or tuple(param.shape) != spec.shape:
        raise ValueError(f"parameter {what} is {_described(param)}, and pure.init was given {_described_spec(leaf)}")
    if grad is None and leaf.formula is None:
        return
    if grad is None:
        name = leaf.name if isinstance(leaf.name, str) else "..."
        raise TypeError(
            f"gradient of {what} is None; a pure form counts the updates of all parameters: freeze it, "
            f"groups={{{name!r}: 'freeze'}}, or give it zeros"
        )
    if library_of(grad) is not library:
        raise TypeError(f"gradient of {what} is {_described(grad)}; wanted an array of {library.name}")
    check_dtype(library, grad, f"gradient of {what}")
    check_kinds(param, grad, f"gradient of {what}")
    if tuple(grad.shape) != spec.shape:
        raise ValueError(f"gradient of {what} has shape {tuple(grad.shape)}, the parameter has {spec.shape}")


def check_state(leaf: Leaf, state: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a state is one of a parameter."""
    if leaf.formula is None:
        return
    rule, spec = leaf.rule, leaf.spec
    wanted = {name: rule.shapes(spec.shape)[rule.fields.index(name)] for name in rule.kept}
    if leaf.settings.values["nonfinite"] == "skip":
        wanted[SKIPPED] = ()
    if state.keys() != wanted.keys():
        raise ValueError(f"slots of {show(leaf.name)} has {', '.join(state) or 'none'}; wanted {', '.join(wanted)}")
    for name, shape in wanted.items():
        x = state[name]
        if library_of(x) is not leaf.library or tuple(x.shape) != shape:
            raise ValueError(
                f"slots of {show(leaf.name)} has {name!r} as {_described(x)}; wanted {leaf.library.name} "
                f"of shape {shape}"
            )


def _described(x: Any) -> str:
    library = library_of(x)
    if library is None:
        return f"a {type(x).__name__}"
    return f"{library.name} {dtype_text(x.dtype)} of shape {tuple(x.shape)}"


def _described_spec(leaf: Leaf) -> str:
    return f"{leaf.library.name} {dtype_text(leaf.spec.dtype)} of shape {leaf.spec.shape}"
