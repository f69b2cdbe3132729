"""What an optimizer is set to and remembers, as one object: what copies, pickles and checkpoints are made of."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

from .._settings.constructor import names
from .._settings.text import naming
from ..schedulers import SchedulerBase, make_scheduler
from .cache import State
from .clock import Clock
from .entry import check_entry, copy_entry
from .interrupts import WRITING, enter
from .settings import Settings
from .skipped import Skipped


class Parts:
    """The parts of an optimizer that outlive a call.

    Parameters
    ----------
    settings : Settings
        The hyperparameters; replaced when one changes.
    clock : Clock
        The step count and the schedule.
    state : State, optional
        The cache and what is known of each parameter; by default there is none.
    skipped : Skipped, optional
        The count of steps that were left out; replaced when it grows.
    """

    __slots__ = ("clock", "settings", "skipped", "state")

    def __init__(
        self, settings: Settings, clock: Clock, state: State | None = None, skipped: Skipped | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.state = State() if state is None else state
        self.skipped = Skipped() if skipped is None else skipped

    def stated_lr(self) -> float:
        """Return the rate that the schedule starts from, else the one that was given."""
        scheduler = self.clock.scheduler
        rate: float = self.settings.values["lr"]
        return rate if scheduler.rate_name is None else scheduler.hyperparameters[scheduler.rate_name]

    def value(self, name: str) -> Any:
        """Return what a hyperparameter is now."""
        return self.stated_lr() if name == "lr" else self.settings.values[name]

    def count_skipped(self) -> int:
        """Return how many steps were left out; that waits for the devices."""
        before = self.skipped
        now = before.read()
        if self.skipped is before:  # no thread that updates has come in between
            self.skipped = now
        return now.on_host

    def keywords(self) -> dict[str, Any]:
        """Return the constructor's keywords and what they are now, in documented order."""
        now = {**self.settings.values, "lr": self.stated_lr(), "lr_scheduler": self.clock.scheduler}
        return {name: now[name] for name in names(self.settings.cls) if name in now}

    def change(self, changes: Mapping[str, Any], cache: Mapping[Hashable, Any], memo: dict[int, Any]) -> None:
        """Change hyperparameters and entries; all of it or, after an error, nothing.

        Parameters
        ----------
        changes : mapping
            Hyperparameters by name, ``lr_scheduler`` among them.
        cache : mapping
            Entries by parameter name; copied.
        memo : dict
            For copies of schedules: the optimizer by its id.

        Raises
        ------
        KeyError, TypeError, ValueError
            As for `OptimizerBase.set_params`.
        """
        settings = self.settings.changed(self.stated_lr(), changes)
        scheduler = self._changed_scheduler(settings, changes, memo)
        entries = {}
        for name, entry in cache.items():
            check_entry(settings.rule, entry, name)
            entries[name] = copy_entry(entry)
        for name, spec in self.state.specs().items():
            settings.check_in_dtype(spec, name)
        state = self.state.with_entries({**self.state.cache, **entries}) if entries else None
        enter(WRITING)
        if state is not None:
            self.state.become(state)
        self.state.ownership.drop_plan()
        self.settings = settings
        if scheduler is not None:
            self.clock.replace_scheduler(scheduler)

    def _changed_scheduler(
        self, settings: Settings, changes: Mapping[str, Any], memo: dict[int, Any]
    ) -> SchedulerBase | None:
        """Return the schedule after `changes`, or None if they leave it alone."""
        lr, scheduler = settings.values["lr"], self.clock.scheduler
        if "lr_scheduler" in changes:
            return own_scheduler(settings, changes["lr_scheduler"], memo)
        if "lr" not in changes or scheduler.rate_name is None:
            return None
        changed = copy.deepcopy(scheduler, memo)
        with naming(f"{settings.cls.__name__}: lr"):
            changed.set_params({scheduler.rate_name: lr})
        return changed

    def snapshot(self, memo: dict[int, Any]) -> Parts:
        """Return what is pickled: the state is taken down here, and may go on while the rest is pickled."""
        return Parts(self.settings, self.clock.settled(memo), self.state.snapshot(), self.skipped)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts, in every protocol."""
        return Parts, (self.settings, self.clock, self.state, self.skipped)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        """Return parts that go on alone."""
        return Parts(self.settings, copy.deepcopy(self.clock, memo), copy.deepcopy(self.state, memo), self.skipped)


def own_scheduler(settings: Settings, spec: Any, memo: dict[int, Any]) -> SchedulerBase:
    """Make the schedule that an optimizer was given, which no other optimizer shares.

    Parameters
    ----------
    settings : Settings
        Of the optimizer.
    spec : None, str, mapping or SchedulerBase
        What it was given.
    memo : dict
        For a copy: the optimizer by its id, to which a schedule may refer.

    Returns
    -------
    SchedulerBase
        The schedule; a copy of an object.
    """
    with naming(f"{settings.cls.__name__}: lr_scheduler"):
        scheduler = make_scheduler(spec, lr=settings.values["lr"])
    return copy.deepcopy(scheduler, memo) if scheduler is spec else scheduler
