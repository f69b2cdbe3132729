"""Parameters that stay as they are: all of a step that is left out, or one that is frozen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.namespace import copy_array, library_of, writer
from .._arrays.parameter import check_out, check_resting, examine, examine_resting, is_number
from .._arrays.tree import flatten, matched, rebuild
from .._arrays.typing import Tree
from .._state.interrupts import WRITING, enter


def rest(param: Any, grad: Any, name: Hashable, out: Any) -> Any:
    """Return a parameter that is frozen, in a new array or in `out`, after the checks of an update.

    Parameters
    ----------
    param, grad, name, out
        As for `OptimizerBase.update`, but that `grad` may be None, and both may be of any dtype.

    Returns
    -------
    array
        The values of `param`.

    Raises
    ------
    TypeError, ValueError
        `param` is no array, or `grad` or `out` has another shape.
    """
    check_resting(param, grad, name)
    if param is out:
        return out
    if library_of(param) is None:
        _, _, param, _ = examine(param, param, name)
    library, spec, value = examine_resting(param, name)
    if out is None:
        return copy_array(value)
    value, target = check_out(library, spec, value, out, name)
    write, value = writer(target), copy_array(value)
    enter(WRITING)
    write(target, value)
    return out


class SkippedUpdate:
    """Returns every parameter as it is, in new arrays or in `out`.

    Parameters
    ----------
    params, out
        As for `OptimizerBase.update_all`.
    taken : mapping
        The parameters that have a gradient, as a rule may see them, by name.
    """

    def __init__(self, params: Tree, out: Tree | None, taken: Mapping[Hashable, Any]) -> None:
        leaves = flatten(params, "params")
        targets = {} if out is None else matched(leaves, flatten(out, "out"), "out")
        values = dict(leaves)
        for name, x in leaves.items():
            if x is targets.get(name) or (out is None and is_number(x)):
                continue
            if name in taken:
                values[name] = copy_array(taken[name])
            elif out is not None:
                values[name] = copy_array(examine_resting(x, name)[2])
        self._writes = iter([(writer(x), x, values[name]) for name, x in targets.items() if values[name] is not x])
        self.answer = rebuild(params, values.__getitem__) if out is None else out

    def finish(self) -> None:
        """Write `out`."""
        for write, x, value in self._writes:
            write(x, value)
