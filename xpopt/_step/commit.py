"""What an update leaves in the state: made before anything is written, then put in place by assignments alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from typing import Any

from .._engine.tensor import Tensor
from .._settings.caller import warn
from .._state.cache import State
from .._state.clock import Clock
from .._state.entry import Record, Slots, pack

GROWN = 10
"""How many updates may lie in the graphs of lazy arrays before there is a warning."""


class Commit:
    """Puts the results of updates in the cache.

    Hashing or comparing a user's name may run user code, which may raise, and a dict may have to grow. So entries of
    new names are inserted before anything is written, and can be removed without hashing. An entry that was never
    handed out is changed, not replaced. Where it is replaced, and the name may run code, all entries are prepared in
    another dict.

    Parameters
    ----------
    state : State
        The optimizer's.
    results : iterable of (Tensor, NamedTuple)
        What was updated, and its new slots. Their arrays may be written later.
    """

    def __init__(self, state: State, results: Iterable[tuple[Tensor, Slots]]) -> None:
        self._state = state
        self.records: list[Record] = []
        mark = state.ownership.mark()
        fresh, replaced, changed, assigned = [], [], [], []
        every: dict[Hashable, Any] | None = None
        grown = 0
        for tensor, slots in results:
            name, spec, t, owned = tensor.name, tensor.spec, tensor.t, tensor.owned
            entry = pack(tensor.rule, t, slots)
            record = state.records.get(name)
            if record is None:
                record = state.records[name] = Record(None, spec, 0)
            if owned and type(record.entry) is dict:
                changed.append((record.entry, entry))
                entry = record.entry
            elif owned and record.entry is entry:
                pass
            elif name not in state.names:
                fresh.append((name, entry))
            elif _is_plain(name):
                replaced.append((name, entry))
            else:
                every = dict(state.names) if every is None else every
                every[name] = entry
            if tensor.library.deferred:
                grown = max(grown, t - state.computed.get(name, 0))
            self.records.append(record)
            assigned.append((record, entry, spec, [t], slots, mark))
        if grown == GROWN:
            warn(
                f"the graphs of parameters and state have grown for {grown} updates, all of which are computed in the "
                f"end, or computed again at each step; call params = opt.persist(params) after each update"
            )
        if every is not None:
            every.update(fresh)
            fresh.clear()
        self._every = every
        plan = state.ownership.plan()
        self._drops_plan = plan is None or bool(fresh) or every is not None or plan.writes_any(self.records)
        # iterators, for to begin a loop over a list is to allocate one
        self._fresh, self._replaced = iter(fresh), iter(replaced)
        self._changed, self._assigned = iter(changed), iter(assigned)

    def around(self, write: Callable[[], None]) -> None:
        """Do all of it; `write` writes the arrays. All that may fail, if `write` does not, comes before."""
        state = self._state
        if self._drops_plan:
            state.ownership.drop_plan()
        cache, before = state.ownership.entries, len(state.ownership.entries)
        try:
            for name, entry in self._fresh:
                cache[name] = entry
            write()
        except BaseException:
            while len(cache) > before:
                with suppress(MemoryError):
                    cache.popitem()  # the last one
            raise
        for name, entry in self._replaced:
            cache[name] = entry
        for old, entry in self._changed:
            old.update(entry)
        if self._every is not None:
            state.refill(self._every)
        for record, entry, spec, count, slots, mark in self._assigned:
            record.entry = entry
            record.spec = spec
            record.count = count
            if record.slots is not slots:
                record.slots = slots
                record.single = None
            record.mark = mark


def count_in_place(state: State, record: Record, count: list[int]) -> None:
    """Count an update that wrote the slots in place, in an entry that was never handed out; nothing in it can fail.

    Parameters
    ----------
    state : State
        The optimizer's.
    record : Record
        What is known of the parameter.
    count : list of int
        Its new count, alone.
    """
    state.ownership.counts_moved = True
    if type(record.entry) is dict:
        record.entry["t"] = count[0]
    record.count = count


def forget(state: State, clock: Clock | None = None) -> None:
    """Forget the parameters whose entries are gone: a program may never call `step`."""
    with suppress(Exception):  # names that cannot be compared; and it can be done the next time
        if len(state.records) > len(state.names):
            state.forget()
        if clock is not None:
            clock.forget(state.names)


_PLAIN = {str, int, bool, float, bytes, type(None)}


def _is_plain(name: Hashable) -> bool:
    """Whether hashing and comparing a name runs no user code."""
    kind = type(name)
    return (
        kind in _PLAIN
        or (kind is tuple and all(map(_is_plain, name)))  # type: ignore[call-overload]
        or (kind.__hash__ is object.__hash__ and kind.__eq__ is object.__eq__)
    )
