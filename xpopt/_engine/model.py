"""The groups of a model: bound together, with one look at what overlaps, and launched together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._arrays.namespace import address_of, library_of
from .._arrays.parameter import lies_in_memory
from .group import Bound, Group, StepNumbers


class Model:
    """Groups that make up a model, or that part of it whose results are computed where they go.

    Nothing of the caller's is kept. At each step, every array is asked again for its type, dtype, shape, layout, flags
    and address.

    Parameters
    ----------
    groups : list of Group
        The groups.
    """

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups
        # the last addresses to be written; these and the ends in ascending order; whether they overlap each other
        self._last: tuple[bytes, Any, Any, bool] = b"", _NONE, np.zeros(1, np.int64), False

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

    def overlaps(self, bound: list[Bound], written: Sequence[Any] = (), read: Sequence[Any] = ()) -> bool:
        """Whether a result would go where something else is to be read or written.

        Slots are the optimizer's own, and overlap nothing. A result goes to its own parameter wherever it begins where
        that does: they are contiguous in one order.

        Parameters
        ----------
        bound : list of Bound
            All with `outs` of the caller.
        written, read : sequence of array
            What else is written, when all results have been, and what is not to change; of any libraries.

        Returns
        -------
        bool
            Whether one would.
        """
        starts, sizes, others, lengths = [], [], [], []
        for group, (params, _, outs, table) in zip(self.groups, bound, strict=True):
            starts.append(table[2])
            sizes.append(group.bytes)
            others.append(table[1])
            lengths.append(group.bytes)
            if outs is not params and np.count_nonzero(apart := table[0] != table[2]):
                others.append(table[0][apart])
                lengths.append(group.bytes[apart])
        for arrays, lows, spans in ((written, starts, sizes), (read, others, lengths)):
            if arrays:
                low, span = _spans(arrays)
                lows.append(low)
                spans.append(span)
        return self._overlap(*map(_joined, (starts, sizes, others, lengths)))

    def launch(self, bound: list[Bound], numbers: StepNumbers) -> list[Callable[[], None]]:
        """Do all that can fail; return what writes the results.

        Parameters
        ----------
        bound : list of Bound
            What `bind` returned.
        numbers : StepNumbers
            With numbers for each row, and a key for each tensor.

        Returns
        -------
        list of callable
            To be called while the arrays are alive.
        """
        return [group.launch(one, numbers) for group, one in zip(self.groups, bound, strict=True)]

    def results(self, bound: list[Bound]) -> list[Any]:
        """Return where the result of each tensor goes."""
        return self._each([one.outs for one in bound])

    def slots(self) -> list[Any]:
        """Return the slots of each tensor."""
        return self._each([group.slots for group in self.groups])

    def _each(self, of_groups: list[list[Any]]) -> list[Any]:
        if len(of_groups) == 1:
            return of_groups[0]
        found: list[Any] = [None] * sum(map(len, of_groups))
        for group, values in zip(self.groups, of_groups, strict=True):
            for i, value in zip(group.members, values, strict=True):
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


_NONE = np.zeros(0, np.int64)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _spans(arrays: Sequence[Any]) -> tuple[Any, Any]:
    """Return where arrays begin, and how many bytes lie between there and their ends."""
    spans = [(address_of(x), x.nbytes) if type(x) is np.ndarray and x.flags.forc else _bounds(x) for x in arrays]
    starts, sizes = np.array(spans, np.int64).T
    return starts, sizes


def _bounds(x: Any) -> tuple[int, int]:
    library = library_of(x)
    if library is None or not lies_in_memory(x):
        return 0, 0
    low, high = library.bounds(x)
    return low, high - low
