"""Who may write the arrays of a state in place: the optimizer alone, unless a caller has seen them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from typing import Any

_references: Callable[[Any], int] | None = getattr(sys, "getrefcount", None)

SEEN = -1
"""The mark of arrays that a caller may hold."""


class Ownership:
    """The entries of the cache, and what is known of who else has them.

    The optimizer may overwrite an array that it made after the cache was last shown, if no caller holds the dict, in
    which he would see the array without asking again. Whether one does is found by comparing the reference counts of
    the dict and of a second one that is never shown: both are attributes of this object and of nothing else.

    Parameters
    ----------
    entries : dict
        The entries, in a dict that nobody else has.
    """

    def __init__(self, entries: dict[Hashable, Any]) -> None:
        self.entries = entries
        self._control: dict[Hashable, Any] = {}
        self.shown = 0
        """How often the cache was shown."""
        self._plan: Any = None
        self._plan_mark = SEEN
        self._behind = False
        self.counts_moved = False
        """Whether a parameter of the plan has been counted alone."""

    def show(self) -> dict[Hashable, Any]:
        """Return the entries to a caller, who may keep what is in them: no array there is written from now on."""
        self.shown += 1
        return self.settled()

    def is_held(self) -> bool:
        """Whether a caller may hold the dict; True where Python counts no references."""
        return _references is None or _references(self.entries) != _references(self._control)

    def mark(self) -> int:
        """Return the mark of arrays that are made now."""
        return SEEN if self.is_held() else self.shown

    def may_write(self, mark: int) -> bool:
        """Whether no caller can have seen arrays of this mark."""
        return mark == self.shown

    # The plan of the model that was updated last; void once a caller may have changed the state that it writes to

    def keep(self, plan: Any) -> None:
        """Keep a plan whose parameters have just been stored, each with its state, unless a caller may reach it."""
        mark = self.mark()
        if mark != SEEN:
            self.settled()  # by the plan before, which may have more parameters
            self._plan, self._plan_mark = plan, mark
            self.counts_moved = True

    def plan(self) -> Any:
        """Return the plan if the state that it writes to cannot have been changed, else None."""
        return self._plan if self._plan_mark == self.shown else None

    def fall_behind(self) -> None:
        """Note that the counts of the plan's parameters are newer than those in the entries."""
        self._behind = True

    def settled(self) -> dict[Hashable, Any]:
        """Return the entries, with the counts that are."""
        if self._behind:
            # an interrupt in the midst of it does no harm: the next time it is all done again
            for record in self._plan.records:
                if type(record.entry) is dict:
                    record.entry["t"] = record.count[0]
            self._behind = False
        return self.entries

    def drop_plan(self) -> None:
        """Keep the plan no longer."""
        self.settled()
        self._plan, self._plan_mark = None, SEEN
