"""What an update is given, checked: the parameter, its gradient and its state, against each other."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text, examine
from .._arrays.tree import show
from .._engine.tensor import Tensor
from .._graph.rule import Rule
from .._settings.misuse import no_name
from .._state.cache import State
from .._state.entry import check_slots, in_dtypes, unpack


def check(
    state: State,
    rule: Rule,
    param: Any,
    grad: Any,
    name: Hashable,
    check_new: Callable[[Spec, Hashable], None],
    step: int = 1,
) -> Tensor:
    """Check a parameter, its gradient and its state against each other; nothing is changed.

    Parameters
    ----------
    state : State
        The optimizer's.
    rule : Rule
        The optimizer's.
    param, grad, name
        As for `OptimizerBase.update`.
    check_new : callable
        Called with the description of a parameter that is new here.
    step : int
        By how much the update counts.

    Returns
    -------
    Tensor
        What is to be updated.
    """
    try:
        record = state.records.get(name)
    except TypeError:
        raise no_name(name) from None
    if record is not None and record.spec.fits(param, grad):
        spec, library = record.spec, library_of(param)
        assert library is not None
    else:
        library, spec, param, grad = examine(param, grad, name)
    if rule.varies:
        rule = rule.of(dtype_text(spec.dtype), spec.shape)
    entries = state.ownership.entries  # no entry of a planned model, whose counts may be behind, is looked at here
    if name not in entries:
        check_new(spec, name)
        return Tensor(name, rule, library, spec, param, grad, step, None, False)
    entry = entries[name]
    if record is None or record.entry is not entry:
        check_new(spec, name)
        stored = state.stored.get(name)
        if stored is not None and stored.entry is entry:
            record = stored.place(library, spec, param, name, rule)
            entry = record.entry
    elif spec is not record.spec and spec != record.spec:
        raise ValueError(
            f"{show(name)} names a parameter that is {record.spec.describe()}, and this one is {spec.describe()}; "
            f"use another name, or delete the old state with del opt.cache[...]"
        )
    elif type(record.slots) is rule.slots and state.ownership.may_write(record.mark):
        return Tensor(name, rule, library, spec, param, grad, record.t + step, record.slots, True)
    elif record.untouched(rule):
        return Tensor(name, rule, library, spec, param, grad, record.t + step, record.slots, False)
    t, slots = unpack(rule, entry, name)
    if slots is not None:
        slots = rule.make_slots(map(library.values, slots))
        if state.converted(name, rule):
            slots = in_dtypes(rule, library, spec, slots)
        check_slots(rule, library, spec, slots, name)
    if t is None:
        t = state.count(name)
    return Tensor(name, rule, library, spec, param, grad, t + step, slots, False)
