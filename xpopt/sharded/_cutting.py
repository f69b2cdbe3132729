"""Which parameters may be cut into pieces: those whose update is elementwise."""

from __future__ import annotations

from collections.abc import Iterable

from .._arrays.library import LOW
from .._graph.node import OF_MODEL
from .._graph.rule import Rule
from .._graph.slots import moduli, one
from .._graph.trace import InPlaceError, UntraceableError, trace
from .._state.settings import Settings


def why_whole(own: Settings, dtype: str, shape: tuple[int, ...]) -> str:
    """Return the reason why a parameter must be updated whole, or "" if it may be cut.

    Parameters
    ----------
    own : Settings
        The settings of the parameter.
    dtype : str
        The name of its dtype.
    shape : tuple of int
        Its shape.

    Returns
    -------
    str
        The reason.
    """
    if own.frozen:
        return ""
    rule, name = own.rule.of(dtype, shape), own.cls.__name__
    if own.values["clip_norm"] is not None:
        return "clip_norm takes the norm of each parameter"
    if own.draws and dtype in LOW:
        return "the random bits of rounding='stochastic' depend on the place of an element in its parameter"
    if own.rule.among or own.cls.axes is not None:
        return f"{name} chooses a rule by the shape of a parameter"
    if own.constants:
        return f"an option of {name} is an array of the parameter's shape"
    if any(spec.shape not in (None, one, moduli) for spec in rule.specs):
        return f"{name} has slots with another shape than the parameter"
    try:
        reductions = trace(rule).reductions() if rule.fused else None
    except (InPlaceError, UntraceableError):
        reductions = None
    if reductions is None:
        return rule.whole or f"{name} is not elementwise"
    reduced = next((node.op for node in reductions if node.op not in OF_MODEL), "")
    return f"{name}, or an option of it, takes {reduced} over each parameter" if reduced else ""


def asks_model(rules: Iterable[Rule]) -> bool:
    """Return whether a rule takes sums or norms over the whole model; one that cannot be traced is assumed to.

    Parameters
    ----------
    rules : iterable of Rule
        The rules of some parameters.

    Returns
    -------
    bool
        Whether one of them does.
    """
    for rule in rules:
        try:
            if any(node.op in OF_MODEL for node in trace(rule).reductions()):
                return True
        except (InPlaceError, UntraceableError):
            return True
    return False
