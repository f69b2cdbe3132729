"""The state of every parameter: the cache, which is the truth, and what is remembered beside it."""

from __future__ import annotations

import math
import sys
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
from .stored import Stored

Task = tuple[Rule, Library, Spec, Array, Array, int, Slots | None, bool]
"""One update, checked: the formula, whose arrays, what they are, parameter, gradient, count, state, and whether that is
all our own."""


_references = getattr(sys, "getrefcount", lambda x: math.nan)


class State:
    """The cache by parameter name, and the description of each parameter that it cannot hold itself."""

    def __init__(self) -> None:
        self._cache: dict[Hashable, Any] = {}
        self._known: dict[Hashable, Known] = {}
        self._stored: dict[Hashable, Stored] = {}
        self.shown = 0  # how often
        self._kept: Any = None  # the model of the last update, and how often the cache had been shown then
        self._behind = False  # whether that model's counts in the cache are those before its last updates

    @property
    def cache(self) -> dict[Hashable, Any]:
        """The entries."""
        if self._behind:
            self._settle()
        return self._cache

    @property
    def names(self) -> Mapping[Hashable, Any]:
        """The entries, for their names: the counts of a model that is kept may be behind."""
        return self._cache

    def show(self) -> dict[Hashable, Any]:
        """Return the cache to a caller, who may keep what is in it: no slot there is written from now on."""
        self.shown += 1
        return self.cache

    def with_entries(self, entries: Mapping[Hashable, Any]) -> State:
        """Return a state of these entries; the counts of their names go on."""
        twin = State()
        twin.shown = self.shown + 1  # the caller has these entries
        twin._cache = dict(entries)
        twin._known, twin._stored = self._still_known(twin._cache)
        return twin

    @classmethod
    def of(cls, loaded: Mapping[Hashable, Known | Stored]) -> State:
        """Return the state that was loaded."""
        state = cls()
        state._cache = {name: one.entry for name, one in loaded.items()}
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
        self.drop_kept()
        self.refill(other._cache)
        self._known, self._stored = other._known, other._stored

    def refill(self, entries: dict[Hashable, Any]) -> None:
        """Put other entries into the cache, into the dict that callers have; no name is hashed or compared."""
        self._cache.clear()
        try:
            self._cache.update(entries)  # into an empty dict goes the table of another as it is
        except MemoryError:
            self._cache = entries

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

    # The model of the last update: void once another update, or a caller who was shown the cache, may have touched it

    def keep(self, kept: Any) -> None:
        """Keep a model whose parameters have just been stored, each with its state, unless a caller may reach it."""
        if self.is_ours():
            kept.count_together()
            self._kept = kept, self.shown

    def kept(self) -> Any:
        """Return the kept model if its state cannot have changed, else None."""
        return self._kept[0] if self._kept is not None and self._kept[1] == self.shown else None

    def fall_behind(self) -> None:
        """Note that the counts of the kept model are newer than those in the cache."""
        self._behind = True

    def is_ours(self) -> bool:
        """Whether no caller holds the cache, in which he would see new arrays without asking for it again."""
        return self._holders() == _HOLDERS

    def _holders(self) -> float:
        """Return the number of references to the cache: one more if a caller holds it."""
        return _references(self._cache)

    def _settle(self) -> None:
        # an interrupt in the midst of it does no harm: the next time it is all done again
        for known in self._kept[0].known:
            if type(known.entry) is dict:
                known.entry["t"] = known.count[0]
        self._behind = False

    def drop_kept(self) -> None:
        """Drop the kept model."""
        if self._behind:
            self._settle()
        self._kept = None

    def spec(self, name: Hashable) -> Spec:
        """Return the description of a parameter of the model kept."""
        return self._known[name].spec

    def specs(self) -> dict[Hashable, Spec]:
        """Return the descriptions of the parameters in the cache, as far as they are known."""
        cache = self._cache
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
        if rule.low:
            rule = rule.low.get(dtype_text(spec.dtype), rule)
        cache = self._cache  # of the model kept, whose counts there may be behind, no entry is looked at here
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
        elif known.shown == self.shown and type(known.slots) is rule.slots:  # never handed out: may be written in place
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
        if self._stored or self._known.keys() != self._cache.keys():
            self._known, self._stored = self._still_known(self._cache)

    def copy(self, copy_entry: Callable[[Any], Any] = copy_entry) -> State:
        """Return the same state in new entries, by default with copies of the arrays."""
        twin = State()
        twin._cache = {name: copy_entry(entry) for name, entry in self.cache.items()}
        twin._known = {
            name: Known(twin._cache[name] if known.entry is self._cache[name] else None, known.spec, known.t)
            for name, known in self._known.items()
            if name in twin._cache
        }
        twin._stored = {
            name: stored._replace(entry=twin._cache[name] if stored.entry is self._cache[name] else None)
            for name, stored in self._stored.items()
            if name in twin._cache
        }
        return twin

    def snapshot(self) -> State:
        """Return the same state in new entries; updates no longer write to their arrays."""
        self.show()
        return self.copy(lambda entry: dict(entry) if type(entry) is dict else entry)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """Return `copy`."""
        return self.copy()


_HOLDERS = State()._holders()
"""The number of references if no caller holds the cache; NaN, which equals nothing, where Python counts none."""
