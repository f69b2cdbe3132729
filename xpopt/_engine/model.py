"""The groups of a model: bound together, with one look at what overlaps, and launched together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .._arrays.address import address_of
from .._arrays.memory import find_shared
from .._arrays.namespace import library_of
from .._arrays.parameter import lies_in_memory
from .._graph.rule import NeedsModelError
from .compiled.break_even import SmallSteps
from .group import Bound, Group, Launched, StepNumbers
from .together import launch_together


class Model:
    """Groups that make up a model.

    Nothing of the caller's is kept. At each step, every array is asked again for its type, dtype, shape, layout, flags
    and address.

    Parameters
    ----------
    groups : list of Group
        The groups.
    whole : bool
        Whether they are all that there is of the model; if not, nothing can be found of it.
    small : sequence of SmallSteps
        What counts the launches of tensors for which a kernel is not worth its compilation yet.
    """

    def __init__(self, groups: list[Group], *, whole: bool = True, small: Sequence[SmallSteps] = ()) -> None:
        self.groups = groups
        self._small = small
        self._whole = whole
        sizes = [group.bytes for group in groups if group.bytes is not None]
        self._bytes = np.concatenate(sizes) if sizes else _NONE  # of each tensor that is written where it lies
        # the last addresses to be written; these and the ends in ascending order; whether they overlap each other
        self._last: tuple[bytes, Any, Any, bool] = b"", _NONE, np.zeros(1, np.int64), False
        self._apart: list[Any] = []  # the last tables in which nothing overlaps

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of a step's numbers each tensor has; False if a group cannot go on."""
        return all(group.set_rows(rows) for group in self.groups)

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> list[Bound] | None:
        """Find where everything lies.

        Parameters
        ----------
        params, grads : list
            As many as there are tensors; what they are is found out here.
        outs : list or None
            Where the results go: `params` itself, other arrays, or None for new ones.

        Returns
        -------
        list of Bound or None
            One for each group. None if an array is not as it was when the groups were built.
        """
        bound = []
        for group in self.groups:
            one = group.bind(params, grads, outs)
            if one is None:
                return None
            bound.append(one)
        return bound

    def overlaps(self, bound: list[Bound], resting: Sequence[Any] = ()) -> bool:
        """Whether a result would go where something else is to be read or written.

        Slots are the optimizer's own, and overlap nothing. A result goes to its own parameter wherever it begins where
        that does: they are contiguous in one order. What is computed before anything is written reads its arrays in
        time, so that only where it is written counts.

        Parameters
        ----------
        bound : list of Bound
            All with `outs` of the caller.
        resting : sequence of array
            What is not to change; of any libraries.

        Returns
        -------
        bool
            Whether one would.
        """
        tables = [one.table for one in bound if one.table is not None]
        if not resting and len(tables) == len(bound) == len(self._apart):
            for one, last in zip(tables, self._apart, strict=True):  # `all` takes longer
                if one is not last:
                    break
            else:
                return False
        written = [x for one in bound if one.table is None for x in one.outs]
        if not tables:
            return find_shared(enumerate([*written, *filter(lies_in_memory, resting)])) is not None
        table = tables[0] if len(tables) == 1 else np.concatenate([of[:3] for of in tables], axis=1)
        starts, sizes, others, lengths = table[2], self._bytes, table[1], self._bytes
        if any(one.outs is not one.params for one in bound if one.table is not None):
            apart = table[0] != starts
            if np.count_nonzero(apart):
                others, lengths = np.concatenate([others, table[0][apart]]), np.concatenate([lengths, sizes[apart]])
        if written:
            starts, sizes = _with_spans(written, starts, sizes)
        if resting:
            others, lengths = _with_spans(resting, others, lengths)
        found = self._overlap(starts, sizes, others, lengths)
        self._apart = [] if found or written or resting else tables
        return found

    def is_outgrown(self) -> bool:
        """Whether a faster engine is worth its kernel by now."""
        return bool(self._small) and any(steps.is_due() for steps in self._small)

    def launch(self, bound: list[Bound], numbers: StepNumbers) -> list[Launched]:
        """Do all that can fail.

        Parameters
        ----------
        bound : list of Bound
            What `bind` returned.
        numbers : StepNumbers
            With numbers for each row, and a key for each tensor.

        Returns
        -------
        list of Launched
            One for each group; they hold while the arrays are alive.
        """
        for steps in self._small:
            steps.count()
        launched: list[Launched] = []
        couples = False
        for group in self.groups:  # `any` of a generator takes longer
            couples = couples or group.couples
        if not couples:
            try:
                for group, one in zip(self.groups, bound, strict=True):
                    launched.append(group.launch(one, numbers))
                return launched
            except NeedsModelError:  # of a rule that runs eagerly, which is known by now
                if not self._whole:
                    raise
        return launch_together(self.groups, bound, numbers, launched)

    def each(self, of_groups: Sequence[Any], what: str) -> list[Any]:
        """Return of each tensor what `Bound` or `Launched` says of it, in the order of the model."""
        if len(of_groups) == 1:
            mine: list[Any] = getattr(of_groups[0], what)
            return mine
        found: list[Any] = [None] * sum(len(group.members) for group in self.groups)
        for group, one in zip(self.groups, of_groups, strict=True):
            for i, value in zip(group.members, getattr(one, what), strict=True):
                found[i] = value
        return found

    def _overlap(self, starts: Any, sizes: Any, others: Any, lengths: Any) -> bool:
        """Whether one of the spans written overlaps another one, or one of the `others`; empty ones never do."""
        addresses = starts.tobytes()
        if addresses != self._last[0]:
            order = np.argsort(starts, kind="stable")
            order = order[sizes[order] > 0]
            starts = starts[order]
            ends = starts + sizes[order]
            self._last = addresses, starts, np.concatenate([[0], ends]), bool((ends[:-1] > starts[1:]).any())
        _, starts, ends, crossing = self._last
        # the last span that starts before the end of each other one; in front of the first, one that is empty
        before = np.searchsorted(starts, others + lengths)
        reached = (ends[before] > others) & (lengths > 0)
        return crossing or bool(np.count_nonzero(reached))  # `any` takes longer


def finish(launched: list[Launched]) -> Callable[[], None]:
    """Return what writes the results of all groups; nothing in it can fail."""
    if len(launched) == 1:
        return launched[0].finish
    return functools.partial(_call_all, iter([one.finish for one in launched]))


def _call_all(calls: Iterator[Callable[[], None]]) -> None:
    for call in calls:
        call()


_NONE = np.zeros(0, np.int64)


def _with_spans(arrays: Sequence[Any], starts: Any, sizes: Any) -> tuple[Any, Any]:
    """Return where arrays begin, and how many bytes lie between there and their ends, behind those of others."""
    spans = [(address_of(x), x.nbytes) if type(x) is np.ndarray and x.flags.forc else _bounds(x) for x in arrays]
    low, size = np.array(spans, np.int64).T
    return np.concatenate([starts, low]), np.concatenate([sizes, size])


def _bounds(x: Any) -> tuple[int, int]:
    library = library_of(x)
    if library is None or not lies_in_memory(x):
        return 0, 0
    low, high = library.bounds(x)
    return low, high - low
