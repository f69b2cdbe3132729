"""The numbers that each host tensor has of its own: slots that are one number, and what is found of whole arrays.

They are computed before the kernels that read them, and what they are found with writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import sums
from .._arrays.namespace import library_of
from .._arrays.typing import Scalars
from .._graph.interpret import interpret
from .._graph.node import Graph
from .._graph.passes import passes_of
from .._graph.questions import Question
from .._graph.rule import Rule
from .group import Answers, Wanted


class Ones:
    """The numbers that each of some tensors of one rule has.

    Parameters
    ----------
    rule : Rule
        The rule, which has slots that are one number, or needs whole arrays.
    h : Scalars
        The numbers of some step.
    clipped : bool
        Whether the rule sees its gradient clipped.
    blocks : list of ndarray, (tensors,)
        For each of these slots its numbers, to be written.
    sizes : sequence of int
        How many numbers each tensor has.
    compute : dtype
        That of the arithmetic.
    """

    def __init__(
        self, rule: Rule, h: Scalars, *, clipped: bool, blocks: list[Any], sizes: Sequence[int], compute: Any
    ) -> None:
        passes = passes_of(rule, h, clipped=clipped)
        self.passes = passes.before
        self._find = [_Numbers(parts.ones) for parts in (*(one.parts for one in passes.before), passes.last)]
        self._blocks, self._names = blocks, [f"s.{rule.fields[k]}" for k in rule.ones]
        self._sizes, self._compute = np.array(sizes, np.int64), compute
        self.questions = frozenset[Question]().union(*passes.questions())
        """What is asked of the whole model."""

    def launch(
        self, scalars: Sequence[Scalars], rows: Any, measure: Callable[[int, Any], list[Any]]
    ) -> Generator[Wanted, Answers, tuple[Any, Iterator[tuple[Any, Any]]]]:
        """Compute them for a step; what is asked of the model is yielded.

        Parameters
        ----------
        scalars : sequence of Scalars
            The numbers of the step for each row.
        rows : sequence of int
            The row of each tensor.
        measure : callable
            ``measure(k, numbers)`` returns what the ways of the reductions of pass `k` come to, of all tensors.

        Returns
        -------
        numbers : ndarray, (tensors, numbers), or None
            Those that meet arrays; None where there are none.
        copies : iterator of (ndarray, ndarray)
            Where the new slots go, and what they are.
        """
        known = dict(zip(self._names, self._blocks, strict=True))
        *before, last = self._find
        tensors, wide = len(self._sizes), self._compute == np.float64
        for k, (find, one) in enumerate(zip(before, self.passes, strict=True)):
            with np.errstate(all="ignore"):
                totals = iter(measure(k, find(known, scalars, rows, tensors, self._compute)))
                found = [(of, [next(totals) for _ in sums.ways(of.op, wide=wide)]) for of in one.reductions]
                for of, ways in found:
                    if of.of_model is None:
                        known[of.name] = sums.finished(of.op, ways, self._sizes).astype(self._compute)
            wanted = {of.of_model: _each(ways) for of, ways in found if of.of_model is not None}
            answers = (yield wanted) if wanted else {}
            with np.errstate(all="ignore"):
                for of, _ in found if wanted else ():
                    if of.of_model is not None:
                        known[of.name] = np.full(tensors, answers[of.of_model]).astype(self._compute)
        with np.errstate(all="ignore"):
            found_last = last(known, scalars, rows, tensors, self._compute)
        if found_last is None:
            return None, iter(())
        met = found_last.shape[1] - len(self._blocks)
        new = [np.ascontiguousarray(found_last[:, met + k]) for k in range(len(self._blocks))]
        return found_last[:, :met], iter(list(zip(self._blocks, new, strict=True)))


def _each(ways: Sequence[Any]) -> list[tuple[float, ...]]:
    """Return what the ways of a reduction come to, tensor by tensor."""
    return list(zip(*(way.tolist() for way in ways), strict=True))


class _Numbers:
    """Computes what a part of numbers makes of those that are known of each tensor."""

    def __init__(self, graph: Graph | None) -> None:
        self._compute = None if graph is None else interpret(graph, library_of(np.empty(0)).xp)  # type: ignore[union-attr]
        self._names = [] if graph is None else [str(node.value) for node in graph.inputs]
        self._count = 0 if graph is None else len(graph.outputs)

    def __call__(
        self, known: Mapping[str, Any], scalars: Sequence[Scalars], rows: Any, tensors: int, compute: Any
    ) -> Any:
        if self._compute is None or self._count == 0:
            return None
        found = np.empty((tensors, self._count), compute)
        for row, h in enumerate(scalars):
            mine = slice(None) if len(scalars) == 1 else np.flatnonzero(np.asarray(rows) == row)
            old = {name: known[name][mine] for name in self._names}
            for k, value in enumerate(self._compute(old, h)):
                found[mine, k] = value
        return found


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
