"""A step that is left out: every parameter stays as it is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.namespace import copy_array, writer
from .._arrays.parameter import examine_resting, is_number
from .._arrays.tree import flatten, rebuild
from .._arrays.typing import Tree


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
        targets = {} if out is None else flatten(out, "out")
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
