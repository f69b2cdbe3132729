"""The state of every parameter: the cache, which is the truth, and what is remembered beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from .._arrays.library import compute_of
from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, dtype_text
from .._arrays.typing import Array
from .._graph.rule import Rule
from .entry import Record, copy_entry
from .ownership import Ownership
from .stored import Stored


class State:
    """The cache by parameter name, and the description of each parameter that it cannot hold itself."""

    def __init__(self) -> None:
        self.ownership = Ownership({})
        self.records: dict[Hashable, Record] = {}
        self.stored: dict[Hashable, Stored] = {}
        self.computed: dict[Hashable, int] = {}
        """The counts at which arrays came in that a library computes later; else 0."""

    @property
    def cache(self) -> dict[Hashable, Any]:
        """The entries."""
        return self.ownership.settled()

    @property
    def names(self) -> Mapping[Hashable, Any]:
        """The entries, for their names: the counts of a planned model may be behind."""
        return self.ownership.entries

    def with_entries(self, entries: Mapping[Hashable, Any]) -> State:
        """Return a state of these entries; the counts of their names go on."""
        twin, cache = State(), dict(entries)
        twin.ownership = Ownership(cache)
        twin.ownership.shown = self.ownership.shown + 1  # the caller has these entries
        twin.records, twin.stored = self._records_of(cache)
        return twin._begun()

    @classmethod
    def of(cls, loaded: Mapping[Hashable, Record | Stored]) -> State:
        """Return the state that was loaded."""
        state = cls()
        state.ownership = Ownership({name: one.entry for name, one in loaded.items()})
        state.records = {name: one for name, one in loaded.items() if isinstance(one, Record)}
        state.stored = {name: one for name, one in loaded.items() if isinstance(one, Stored)}
        return state._begun()

    def _begun(self) -> State:
        """Note that all arrays have just come in."""
        self.computed = {name: one.t for name, one in (self.stored | self.records).items()}
        return self

    def arrays(self) -> list[Array]:
        """Return the arrays in all entries."""
        found = [x for entry in self.cache.values() for x in (entry.values() if isinstance(entry, dict) else (entry,))]
        return [x for x in found if library_of(x) is not None]

    def with_arrays(self, arrays: Iterable[Array]) -> State:
        """Return the same state with arrays of the same values in the places of `arrays()`."""
        new = iter(arrays)

        def other(x: Any) -> Any:
            return x if library_of(x) is None else next(new)

        def others(entry: Any) -> Any:
            return {key: other(x) for key, x in entry.items()} if isinstance(entry, dict) else other(entry)

        return self.copy(others)._begun()

    def described(self, name: Hashable) -> tuple[tuple[int, ...] | None, str | None, int]:
        """Return shape, dtype and count of the parameter of an entry, None or 0 where they are not known."""
        entry, record, stored = self.cache[name], self.records.get(name), self.stored.get(name)
        if record is not None and record.entry is entry:
            return record.spec.shape, dtype_text(record.spec.dtype), record.t
        if stored is not None and stored.entry is entry:
            return stored.shape, stored.dtype, stored.t
        return None, None, self.count(name)

    def converted(self, name: Hashable, rule: Rule) -> str | None:
        """Return the dtype of a parameter's arithmetic if its next update converts what other settings made.

        Parameters
        ----------
        name : hashable
            A name in the cache.
        rule : Rule
            The rule of its settings, which may be other ones than those that made its slots.

        Returns
        -------
        str or None
            None where the entry has to be as the rule keeps it: then a caller has set it, or the rule itself made it.
        """
        entry, record, stored = self.names[name], self.records.get(name), self.stored.get(name)
        if record is not None and record.entry is entry:
            return None if record.made_by(rule) else dtype_text(record.spec.compute)
        if stored is not None and stored.entry is entry and stored.dtype is not None:
            return compute_of(stored.dtype)
        return None

    def become(self, other: State) -> None:
        """Take over what another state holds, which is none of this one's any more; nothing in it can fail."""
        self.ownership.drop_plan()
        self.refill(other.ownership.entries)
        self.records, self.stored, self.computed = other.records, other.stored, other.computed

    def refill(self, entries: dict[Hashable, Any]) -> None:
        """Put other entries into the cache, into the dict that callers have; no name is hashed or compared."""
        ownership = self.ownership
        ownership.entries.clear()
        try:
            ownership.entries.update(entries)  # into an empty dict goes the table of another as it is
        except MemoryError:
            ownership.entries = entries

    def count(self, name: Hashable) -> int:
        """Return how often a parameter has been updated, for an entry that does not say so."""
        record = self.records.get(name) or self.stored.get(name)
        return 0 if record is None else record.t

    def _records_of(self, cache: Mapping[Hashable, Any]) -> tuple[dict[Hashable, Record], dict[Hashable, Stored]]:
        """Return what is known of the names in a cache; of other entries than theirs, the description and the count."""
        records = {name: one.of(cache[name]) for name, one in self.records.items() if name in cache}
        stored = {
            name: one.of(cache[name]) for name, one in self.stored.items() if name in cache and name not in records
        }
        return records, stored

    def spec(self, name: Hashable) -> Spec:
        """Return the description of a parameter of the planned model."""
        return self.records[name].spec

    def shape(self, name: Hashable, entry: Any) -> tuple[int, ...]:
        """Return the shape of a parameter as far as it is known, or else that of the largest array in its entry."""
        known = self.described(name)[0] if name in self.names else None
        if known is not None:
            return tuple(known)
        arrays = entry.values() if isinstance(entry, dict) else (entry,)
        return max((tuple(getattr(x, "shape", ())) for x in arrays), key=len, default=())

    def specs(self) -> dict[Hashable, Spec]:
        """Return the descriptions of the parameters in the cache, as far as they are known."""
        cache = self.names
        return {name: one.spec for name, one in self.records.items() if name in cache and one.entry is cache[name]}

    def forget(self) -> None:
        """Forget the parameters whose entries are gone."""
        if self.stored or self.records.keys() != self.names.keys():
            self.records, self.stored = self._records_of(self.names)

    def copy(self, copy_entry: Callable[[Any], Any] = copy_entry) -> State:
        """Return the same state in new entries, by default with copies of the arrays."""
        twin, before = State(), self.cache
        cache = {name: copy_entry(entry) for name, entry in before.items()}
        twin.ownership = Ownership(cache)
        twin.records = {
            name: Record(cache[name] if record.entry is before[name] else None, record.spec, record.t)
            for name, record in self.records.items()
            if name in cache
        }
        twin.stored = {
            name: stored._replace(entry=cache[name] if stored.entry is before[name] else None)
            for name, stored in self.stored.items()
            if name in cache
        }
        twin.computed = dict(self.computed)
        return twin

    def snapshot(self) -> State:
        """Return the same state in new entries; updates no longer write to their arrays."""
        self.ownership.show()
        return self.copy(lambda entry: dict(entry) if type(entry) is dict else entry)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """Return `copy`."""
        return self.copy()
