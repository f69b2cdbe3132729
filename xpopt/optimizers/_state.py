"""The state of every parameter: the cache, which is the truth, and what is remembered beside it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .._library import Library
from .._namespace import library_of
from .._parameter import Spec, are_slots, dtype_text, examine
from .._rule import Rule
from .._tree import show
from .._typing import Array
from ._entries import Known, Slots, copy_entry, mismatch, pack, unpack
from ._misuse import no_name
from ._stored import Stored

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
        self._shown = 0
        self._kept: Any = None  # the model of the last update, and how often the cache had been shown then
        self._behind = False  # whether that model's counts in the cache are those before its last updates

    @property
    def cache(self) -> dict[Hashable, Any]:
        """The entries."""
        if self._behind:
            self._settle()
        return self._cache

    def show(self) -> dict[Hashable, Any]:
        """Return the cache to a caller, who may keep what is in it: no slot there is written from now on."""
        self._shown += 1
        return self.cache

    def replace(self, entries: Mapping[Hashable, Any]) -> None:
        """Start over from other entries; the counts of their names go on."""
        self._drop()
        self._cache = dict(entries)
        self._let_go()

    def load(self, loaded: Mapping[Hashable, Known | Stored]) -> None:
        """Start over from what was loaded, in arrays of its own."""
        self.replace({name: one.entry for name, one in loaded.items()})
        self._known = {name: one for name, one in loaded.items() if isinstance(one, Known)}
        self._stored = {name: one for name, one in loaded.items() if isinstance(one, Stored)}

    def described(self, name: Hashable) -> tuple[tuple[int, ...] | None, str | None, int]:
        """Return shape, dtype and count of the parameter of an entry, None or 0 where they are not known."""
        entry, known, stored = self.cache[name], self._known.get(name), self._stored.get(name)
        if known is not None and known.entry is entry:
            return known.spec.shape, dtype_text(known.spec.dtype), known.t
        if stored is not None and stored.entry is entry:
            return stored.shape, stored.dtype, stored.t
        return None, None, self._count(name)

    def restore(self, entries: Mapping[Hashable, Any]) -> None:
        """Put entries in the place of those of the same names, whose counts go on."""
        self._drop()
        self._cache.update(entries)
        self._let_go()

    def _count(self, name: Hashable) -> int:
        """Return how often a parameter has been updated, for an entry that does not say so."""
        known = self._known.get(name) or self._stored.get(name)
        return 0 if known is None else known.t

    def _let_go(self) -> None:
        """Forget names that are gone, and of entries that are gone all but the description and the count."""
        cache = self._cache
        self._known = {name: known.of(cache[name]) for name, known in self._known.items() if name in cache}
        self._stored = {
            name: stored.of(cache[name])
            for name, stored in self._stored.items()
            if name in cache and name not in self._known
        }

    # The model of the last update: void once another update, or a caller who was shown the cache, may have touched it

    def keep(self, kept: Any) -> None:
        """Keep a model whose parameters have just been stored, each with its state, unless a caller may reach it."""
        self._kept = (kept, self._shown) if self._is_ours() else None

    def kept(self) -> Any:
        """Return the model kept, if nobody can have changed its state; else None."""
        return self._kept[0] if self._kept is not None and self._kept[1] == self._shown else None

    def advance(self) -> None:
        """Count an update of the model kept."""
        counts = self._kept[0].counts
        counts[:] = [t + 1 for t in counts]
        self._behind = True

    def _is_ours(self) -> bool:
        """Whether no caller kept the cache, where he would find what is stored there without being shown it."""
        return self._holders() == _HOLDERS

    def _holders(self) -> float:
        """Return how many references there are to the cache: one more if a caller kept it."""
        return _references(self._cache)

    def _settle(self) -> None:
        # an interrupt in the midst of it does no harm: the next time it is all done again
        for name, t in self._kept[0].updated():
            known = self._known[name]
            known.t = t
            if type(known.entry) is dict:
                known.entry["t"] = t
        self._behind = False

    def _drop(self) -> None:
        if self._behind:
            self._settle()
        self._kept = None

    def spec(self, name: Hashable) -> Spec:
        """Return the description of a parameter of the model kept."""
        return self._known[name].spec

    def specs(self) -> dict[Hashable, Spec]:
        """Return the descriptions of the parameters in the cache, as far as they are known."""
        return {name: known.spec for name, known in self._known.items() if self.cache.get(name) is known.entry}

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
        cache = self.cache
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
        elif known.shown == self._shown and type(known.slots) is rule.slots:  # which nobody else has ever seen
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

    def store(self, rule: Rule, name: Hashable, spec: Spec, t: int, slots: Slots) -> None:
        """Put the result of an update in the cache."""
        if self._kept is not None:
            self._drop()
        self._cache[name] = entry = pack(rule, t, slots)
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known(entry, spec, t, slots)
        else:
            known.entry, known.spec, known.t, known.slots = entry, spec, t, slots
        known.shown = self._shown if self._is_ours() else -1
        if len(self._known) > len(self._cache):  # entries have been deleted, and nobody may ever call `step`
            self.forget()

    def forget(self) -> None:
        """Let go of what is known of parameters whose entries are gone."""
        if self._stored or self._known.keys() != self.cache.keys():
            self._let_go()

    def copy(self) -> State:
        """Return the same state in arrays of its own."""
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

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the truth alone."""
        self._drop()
        return self.__dict__

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        """Return `copy`."""
        return self.copy()


_HOLDERS = State()._holders()
"""How many there are if nobody else holds it; NaN, which equals nothing, where Python does not count them."""
