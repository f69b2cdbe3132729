"""The slots of host tensors that are one number: side by side in memory, computed before the kernels that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays.namespace import library_of
from .._arrays.typing import Scalars
from .._graph.interpret import interpret
from .._graph.ones import parts_of
from .._graph.rule import Rule


class Ones:
    """The slots of some tensors of one rule that are one number, and what the rule makes of them.

    Parameters
    ----------
    rule : Rule
        The rule, which has such slots.
    h : Scalars
        The numbers of some step.
    clipped : bool
        Whether the rule sees its gradient clipped.
    blocks : list of ndarray, (tensors,)
        For each of these slots its numbers, to be written.
    """

    def __init__(self, rule: Rule, h: Scalars, *, clipped: bool, blocks: list[Any]) -> None:
        graph = parts_of(rule, h, clipped=clipped).ones
        assert graph is not None
        self._compute = interpret(graph, library_of(blocks[0]).xp)  # type: ignore[union-attr]
        self._blocks = blocks
        self._names = [str(node.value) for node in graph.inputs]
        self._count = len(graph.outputs)

    @np.errstate(all="ignore")
    def launch(self, scalars: Sequence[Scalars], rows: Any) -> tuple[Any, Iterator[tuple[Any, Any]]]:
        """Compute what the rule makes of them at a step.

        Parameters
        ----------
        scalars : sequence of Scalars
            The numbers of the step for each row.
        rows : sequence of int
            The row of each tensor.

        Returns
        -------
        numbers : ndarray, (tensors, numbers)
            Those that meet arrays.
        copies : iterator of (ndarray, ndarray)
            Where the new slots go, and what they are.
        """
        blocks, met = self._blocks, self._count - len(self._blocks)
        found = np.empty((len(blocks[0]), self._count), blocks[0].dtype)
        for row, h in enumerate(scalars):
            mine = slice(None) if len(scalars) == 1 else np.flatnonzero(np.asarray(rows) == row)
            old = {name: block[mine] for name, block in zip(self._names, blocks, strict=True)}
            for k, value in enumerate(self._compute(old, h)):
                found[mine, k] = value
        new = [np.ascontiguousarray(found[:, met + k]) for k in range(len(blocks))]
        return found[:, :met], iter(list(zip(blocks, new, strict=True)))


def side_by_side(rule: Rule, slots: list[Any]) -> tuple[list[Any], list[Any]]:
    """Lay the slots that are one number side by side.

    Parameters
    ----------
    rule : Rule
        Whose slots these are.
    slots : list of NamedTuple of ndarray
        Those of some tensors.

    Returns
    -------
    slots : list of NamedTuple of ndarray
        The same, in which these slots are views; for one tensor the very same.
    blocks : list of ndarray, (tensors,)
        What they are views of, for each field.
    """
    if not rule.ones:
        return slots, []
    if len(slots) == 1:
        return slots, [slots[0][k].reshape(1) for k in rule.ones]
    blocks = [np.array([of[k] for of in slots]) for k in rule.ones]
    places = dict(zip(rule.ones, blocks, strict=True))
    return [
        rule.make_slots([places[k][i, ...] if k in places else x for k, x in enumerate(of)])
        for i, of in enumerate(slots)
    ], blocks


def with_copies(call: Callable[[], None], copies: Iterator[tuple[Any, Any]]) -> None:
    """Do what a kernel does, and write what was computed before."""
    call()
    for target, value in copies:
        np.copyto(target, value)
