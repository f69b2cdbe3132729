"""The way back from a pure form to its optimizer."""

from __future__ import annotations

import copy
from typing import Any

from .._arrays.namespace import copy_array
from .._state.entry import Record
from .._state.interrupts import WRITING, enter
from .._state.parts import Parts
from .._state.settings import Settings
from .._state.skipped import Skipped
from .checks import check_state
from .leaf import SKIPPED
from .places import at
from .pure import Pure


def take(parts: Parts, pure: Pure, slots: Any, memo: dict[int, Any]) -> None:
    """Do what `OptimizerBase.take` does.

    Parameters
    ----------
    parts : Parts
        The optimizer's.
    pure : Pure
        Its pure form.
    slots : containers
        The state.
    memo : dict
        For copies of schedules: the optimizer by its id.
    """
    if not pure.leaves:
        raise RuntimeError(
            "take needs the state of a model, and the last pure form has none; call its init(params) first"
        )
    if parts.settings is not pure.settings and _values(parts.settings) != _values(pure.settings):
        raise ValueError(
            f"the settings of this {pure.settings.cls.__name__} have changed since pure(), and the slots were computed "
            f"with those from before; set them back, take, and change them afterwards"
        )
    entries: dict[Any, Any] = {}
    records: dict[Any, Record] = {}
    skipped = 0
    for name, leaf in pure.leaves.items():
        if leaf.formula is None:
            continue
        state = at(slots, leaf.path, name)
        for x in state.values():
            leaf.library.admit(x)
        check_state(leaf, state)
        t, rule, library = leaf.t + pure.steps, leaf.rule, leaf.library
        kept = [copy_array(state[field]) for field in rule.kept]
        entry = kept[0] if rule.bare else dict(zip(rule.keys, (t, *kept), strict=True))
        entries[name] = entry
        device = library.place(kept[0]) if kept else leaf.device
        if device is not None:
            records[name] = Record(entry, leaf.spec._replace(device=device), t)
        if SKIPPED in state:
            skipped = int(next(iter(library.to_numpy([state[SKIPPED]]))))
    twin = parts.state.with_entries({**parts.state.cache, **entries})
    twin.records |= records
    clock = copy.deepcopy(pure.clock, memo)
    enter(WRITING)
    parts.state, parts.clock = twin, clock
    parts.skipped = Skipped(pure.skipped.read().on_host + skipped)


def _values(settings: Settings) -> list[Any]:
    """Return the settings of the optimizer and of its groups, to be compared."""
    groups = [(group.pattern, group.others, group.settings) for group in settings.groups]
    return [settings.values, *((*where, one.cls, one.frozen, one.values) for *where, one in groups)]
