"""The state of every parameter: the cache, which is the truth, and what is remembered beside it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.parameter import Spec, are_slots, dtype_text, examine
from .._arrays.tree import show
from .._arrays.typing import Array
from .._graph.rule import Rule
from .._settings.misuse import no_name
from .entry import Known, Slots, copy_entry, mismatch, unpack
from .ownership import Ownership
from .stored import Stored

Task = tuple[Rule, Library, Spec, Array, Array, int, Slots | None, bool]
"""One update, checked: the formula, whose arrays, what they are, parameter, gradient, count, state, and whether that is
all our own."""


class State:
    """The cache by parameter name, and the description of each parameter that it cannot hold itself."""

    def __init__(self) -> None:
        self.ownership = Ownership({})
        self._known: dict[Hashable, Known] = {}
        self._stored: dict[Hashable, Stored] = {}

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
        twin._known, twin._stored = self._still_known(cache)
        return twin

    @classmethod
    def of(cls, loaded: Mapping[Hashable, Known | Stored]) -> State:
        """Return the state that was loaded."""
        state = cls()
        state.ownership = Ownership({name: one.entry for name, one in loaded.items()})
        state._known = {name: one for name, one in loaded.items() if isinstance(one, Known)}
        state._stored = {name: one for name, one in loaded.items() if isinstance(one, Stored)}
        return state

    def described(self, name: Hashable) -> tuple[tuple[int, ...] | None, str | None, int]:
        """Return shape, dtype and count of the parameter of an entry, None or 0 where they are not known."""
        entry, known, stored = self.cache[name], self._known.get(name), self._stored.get(name)
        if known is not None and known.entry is entry:
            return known.spec.shape, dtype_text(known.spec.dtype), known.t
        if stored is not None and stored.entry is entry:
            return stored.shape, stored.dtype, stored.t
        return None, None, self._count(name)

    def become(self, other: State) -> None:
        """Take over what another state holds, which is none of this one's any more; nothing in it can fail."""
        self.ownership.drop_plan()
        self.refill(other.ownership.entries)
        self._known, self._stored = other._known, other._stored

    def refill(self, entries: dict[Hashable, Any]) -> None:
        """Put other entries into the cache, into the dict that callers have; no name is hashed or compared."""
        ownership = self.ownership
        ownership.entries.clear()
        try:
            ownership.entries.update(entries)  # into an empty dict goes the table of another as it is
        except MemoryError:
            ownership.entries = entries

    def _count(self, name: Hashable) -> int:
        """Return how often a parameter has been updated, for an entry that does not say so."""
        known = self._known.get(name) or self._stored.get(name)
        return 0 if known is None else known.t

    def _still_known(self, cache: Mapping[Hashable, Any]) -> tuple[dict[Hashable, Known], dict[Hashable, Stored]]:
        """Return what is known of the names in a cache; of other entries than theirs, the description and the count."""
        known = {name: one.of(cache[name]) for name, one in self._known.items() if name in cache}
        stored = {
            name: one.of(cache[name]) for name, one in self._stored.items() if name in cache and name not in known
        }
        return known, stored

    def spec(self, name: Hashable) -> Spec:
        """Return the description of a parameter of the planned model."""
        return self._known[name].spec

    def specs(self) -> dict[Hashable, Spec]:
        """Return the descriptions of the parameters in the cache, as far as they are known."""
        cache = self.names
        return {name: one.spec for name, one in self._known.items() if name in cache and one.entry is cache[name]}

    def take_in(
        self, rule: Rule, param: Any, grad: Any, name: Hashable, check_new: Callable[[Spec, Hashable], None]
    ) -> Task:
        """Check a parameter, its gradient and its state against each other; nothing is changed.

        Parameters
        ----------
        rule : Rule
            The optimizer's.
        param, grad, name
            As for `OptimizerBase.update`.
        check_new : callable
            Called with the description of a parameter that is new here.

        Returns
        -------
        Task
            The update to compute.
        """
        try:
            known = self._known.get(name)
        except TypeError:
            raise no_name(name) from None
        if known is not None and known.spec.fits(param, grad):
            spec, library = known.spec, library_of(param)
            assert library is not None
        else:
            library, spec, param, grad = examine(param, grad, name)
        if rule.varies:
            rule = rule.of(dtype_text(spec.dtype), spec.shape)
        cache = self.ownership.entries  # no entry of a planned model, whose counts may be behind, is looked at here
        if name not in cache:
            check_new(spec, name)
            return rule, library, spec, param, grad, 1, None, False
        entry = cache[name]
        if known is None or known.entry is not entry:
            check_new(spec, name)
            stored = self._stored.get(name)
            if stored is not None and stored.entry is entry:
                known = stored.place(library, spec, param, name)
                entry = known.entry
        elif spec is not known.spec and spec != known.spec:
            raise ValueError(
                f"{show(name)} names a parameter that is {known.spec.describe()}, and this one is {spec.describe()}; "
                f"use another name, or forget the old one with del opt.cache[...]"
            )
        elif self.ownership.may_write(known.mark) and type(known.slots) is rule.slots:
            return rule, library, spec, param, grad, known.t + 1, known.slots, True
        elif known.untouched(rule):
            return rule, library, spec, param, grad, known.t + 1, known.slots, False
        t, slots = unpack(rule, entry, name)
        if slots is not None:
            slots = rule.make_slots(map(library.values, slots))
            if not are_slots(library, spec, slots):
                raise mismatch(rule, library, spec, slots, name)
        if t is None:
            t = self._count(name)
        return rule, library, spec, param, grad, t + 1, slots, False

    def forget(self) -> None:
        """Forget the parameters whose entries are gone."""
        if self._stored or self._known.keys() != self.names.keys():
            self._known, self._stored = self._still_known(self.names)

    def copy(self, copy_entry: Callable[[Any], Any] = copy_entry) -> State:
        """Return the same state in new entries, by default with copies of the arrays."""
        twin, before = State(), self.cache
        cache = {name: copy_entry(entry) for name, entry in before.items()}
        twin.ownership = Ownership(cache)
        twin._known = {
            name: Known(cache[name] if known.entry is before[name] else None, known.spec, known.t)
            for name, known in self._known.items()
            if name in cache
        }
        twin._stored = {
            name: stored._replace(entry=cache[name] if stored.entry is before[name] else None)
            for name, stored in self._stored.items()
            if name in cache
        }
        return twin

    def snapshot(self) -> State:
        """Return the same state in new entries; updates no longer write to their arrays."""
        self.ownership.show()
        return self.copy(lambda entry: dict(entry) if type(entry) is dict else entry)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """Return `copy`."""
        return self.copy()
