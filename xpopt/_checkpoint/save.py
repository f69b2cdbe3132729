"""An optimizer's state, taken down as a header and flat arrays."""

from __future__ import annotations

import operator
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from .._arrays.namespace import library_of
from .._arrays.tree import show
from .._arrays.typing import Array
from .._state.entry import check_entry
from . import Current, Header, Parameter, Schedule, array_key

if TYPE_CHECKING:
    from ..optimizers.base import OptimizerBase


def take_down(opt: OptimizerBase) -> tuple[Header, dict[str, Array]]:
    """Return all that an optimizer is set to and remembers.

    Parameters
    ----------
    opt : OptimizerBase
        Only looked at.

    Returns
    -------
    header : Header
    arrays : dict of str to array
        The slots themselves, by key.

    Raises
    ------
    ValueError
        The cache holds something that the next update would refuse.
    """
    parameters, arrays = [], {}
    for name, entry in opt._state.cache.items():
        slots = _slots(opt, name, entry)
        shape, dtype, updates = opt._state.described(name)
        if isinstance(entry, dict):
            updates = operator.index(entry["t"])
        if shape is None and slots:
            shape = next(iter(slots.values())).shape
        sizes = None if shape is None else tuple(map(int, shape))
        parameters.append(Parameter(name, sizes, dtype, updates, tuple(slots)))
        for slot, x in slots.items():
            arrays[array_key(name, slot)] = x
    scheduler, current = opt.lr_scheduler, opt._clock.current()
    keywords = dict(scheduler.hyperparameters)
    return Header(
        type(opt).__name__,
        type(opt).version,
        {**opt._values, "lr": opt._stated_lr()},
        Schedule(keywords.pop("id"), keywords, opt._clock.history()),
        opt.cur_step,
        opt.skipped,
        None if current is None else Current(*current),
        tuple(parameters),
    ), arrays


def _slots(opt: OptimizerBase, name: Hashable, entry: Any) -> Mapping[str, Array]:
    """Return the arrays in a cache entry by the names of their slots."""
    rule = opt._formula_now
    check_entry(rule, entry, name)
    if isinstance(entry, dict):
        return {slot: x for slot, x in entry.items() if slot != "t"}
    library = library_of(entry)
    assert library is not None
    if library.dtype_name(entry.dtype) not in ("float32", "float64"):  # left by a rule that now keeps nothing
        raise ValueError(f"cache of {show(name)} is of {entry.dtype}; wanted float32 or float64")
    slot, *_ = rule.fields or type(opt).slots._fields
    return {slot: entry}
