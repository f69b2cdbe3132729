"""What a task does with one chunk, in whichever process has it."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from ..._arrays.namespace import library_of
from ..._arrays.norms import scaled
from ..._arrays.parameter import Spec
from ..._arrays.typing import Scalars
from ..._graph.rule import Rule
from ..group import Launched
from ..tensor import Tensor


class Job:
    """The update of each chunk of a parameter.

    Parameters
    ----------
    launch : callable
        Chooses an engine for a tensor, as `choose.launch_one`.
    rule : bytes
        The formula, pickled: equal bytes are one rule in a process, whose kernels are made once.
    h : Scalars
        The numbers of the step; with them, no gradient is clipped any more.
    clipped : bool
        Whether the two numbers that clip the gradient come with the chunk.
    skips : bool
        Whether it comes with a truth value, whether anything is to change.
    """

    def __init__(
        self, launch: Callable[[Tensor], tuple[Launched, Any]], rule: bytes, h: Scalars, *, clipped: bool, skips: bool
    ) -> None:
        self._launch, self._rule, self._h = launch, rule, h
        self._clipped, self._skips = clipped, skips

    def __call__(self, param: Any, grad: Any, *others: Any) -> tuple[Any, ...]:
        """Return the new chunk of the parameter and of each slot.

        Parameters
        ----------
        param, grad : array
            The chunks; only read.
        *others : array
            The chunks of the slots; what clips the gradient; whether to go on.

        Returns
        -------
        tuple of array
            New arrays, or those that came, where nothing changes.
        """
        rule, others = _rule(self._rule), others
        *slots, proceed = others if self._skips else (*others, True)
        if not proceed:
            return param, *slots[: len(rule.fields)]
        param, grad, *slots = (np.asarray(x) if isinstance(x, np.generic) else x for x in (param, grad, *slots))
        library = library_of(param)
        assert library is not None
        compute = library.compute_dtype(param.dtype)
        if self._clipped:
            *slots, scale, factor = slots
            grad = library.guard(scaled_in)(grad, library.xp, compute, scale, factor)
        spec = Spec(library.name, param.dtype, tuple(param.shape), library.place(param), compute)
        tensor = Tensor("", rule, library, spec, param, grad, 1, rule.make_slots(slots), h=self._h)
        launched, _ = self._launch(tensor)
        launched.finish()
        return launched.results[0], *launched.slots[0]


def scaled_in(grad: Any, xp: Any, compute: Any, scale: Any, factor: Any) -> Any:
    """Return a gradient clipped by two numbers, in the dtype of the arithmetic."""
    return scaled(xp, xp.astype(grad, compute, copy=False), scale, factor)


@functools.lru_cache(maxsize=256)
def _rule(pickled: bytes) -> Rule:
    rule: Rule = pickle.loads(pickled)
    return rule


def item(k: int, results: tuple[Any, ...]) -> Any:
    """Return one of the results of a chunk."""
    return results[k]
