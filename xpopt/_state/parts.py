"""What an optimizer is set to and remembers, as one object: what copies, pickles and checkpoints are made of."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any

from .._arrays.tree import show
from .._settings.companion import OTHERS, takes_others
from .._settings.constructor import names
from ..schedulers import ConstantScheduler, SchedulerBase
from ..schedulers.kinds.base import Schedule
from . import grouping, groups, schedules
from .cache import State
from .clock import Clock
from .entry import Record, copy_entry
from .following import Following
from .interrupts import WRITING, enter
from .passes import Passes
from .restored import check_entry
from .scale import Scale
from .settings import Settings
from .skipped import Skipped


class Parts:
    """The parts of an optimizer that outlive a call.

    Parameters
    ----------
    settings : Settings
        The hyperparameters; replaced when one changes.
    clock : Clock
        The step count and the schedules.
    state : State, optional
        The cache and what is known of each parameter; by default there is none.
    skipped : Skipped, optional
        The count of steps that were left out; replaced when it grows.
    scale : Scale, optional
        What the loss is multiplied by where steps decide about it, once they have; replaced when it moves.
    """

    __slots__ = ("clock", "scale", "settings", "skipped", "state")

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        state: State | None = None,
        skipped: Skipped | None = None,
        scale: Scale | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.state = State() if state is None else state
        self.skipped = Skipped() if skipped is None else skipped
        self.scale = scale

    @classmethod
    def made(cls, settings: Settings, scheduler: Any, spec: Mapping[str | None, Any], memo: dict[int, Any]) -> Parts:
        """Return the parts of a new optimizer.

        Parameters
        ----------
        settings : Settings
            Without groups.
        scheduler : None, str, mapping or SchedulerBase
            The schedule that it was given.
        spec : mapping
            The groups, as for `grouping.grouped`.
        memo : dict
            For copies of schedules: the optimizer by its id.

        Returns
        -------
        Parts
            With no state.

        Raises
        ------
        TypeError, ValueError
            The schedule or a group cannot be made.
        """
        place = f"{settings.cls.__name__}: lr_scheduler"
        scheduler = schedules.own_scheduler(settings.cls, scheduler, settings.values["lr"], place, memo)
        settings, others = grouping.grouped(settings, scheduler, spec, memo) if spec else (settings, {})
        return cls(settings, Clock(scheduler, others))

    def stated_lr(self) -> Any:
        """Return the rate that the schedule starts from, else the one that was given, which may be a schedule."""
        return schedules.stated_lr(self.settings, self.clock.scheduler)

    def value(self, name: str) -> Any:
        """Return what a hyperparameter is now."""
        if name == "lr":
            return self.stated_lr()
        if name == "groups":
            return self.groups()
        if name == OTHERS and takes_others(self.settings.cls):
            return self.others()
        return self.settings.values[name]

    def groups(self) -> Mapping[str, Any]:
        """Return what each group is now, by pattern, as plain data."""
        return groups.as_data(self.settings, self.clock.others)

    def others(self) -> Mapping[str, Any] | None:
        """Return the optimizer of parameters of other shapes, as plain data."""
        return groups.others_as_data(self.settings, self.clock.others)

    def count_skipped(self) -> int:
        """Return how many steps were left out; that waits for the devices."""
        before = self.skipped
        now = before.read()
        if self.skipped is before:  # no thread that updates has come in between
            self.skipped = now
        return now.on_host

    def keywords(self) -> dict[str, Any]:
        """Return the constructor's keywords and what they are now, in documented order."""
        now = groups.keywords(self.settings, self.clock.scheduler)
        now["groups"] = groups.as_written(self.settings, self.clock.others)
        if takes_others(self.settings.cls):
            now[OTHERS] = groups.others_as_written(self.settings, self.clock.others)
        return {name: now[name] for name in names(self.settings.cls) if name in now}

    def change(self, changes: Mapping[str, Any], cache: Mapping[Hashable, Any], memo: dict[int, Any]) -> None:
        """Change hyperparameters and entries; all of it or, after an error, nothing.

        Parameters
        ----------
        changes : mapping
            Hyperparameters by name, ``lr_scheduler`` among them, and ``groups`` as for `grouping.grouped`.
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
        scheduler, length = self._changed_scheduler(settings, changes, memo), self.settings.accumulate
        if settings.accumulate != length and self.clock.passes.is_between(length):
            raise ValueError(
                f"{settings.cls.__name__}: accumulate={settings.accumulate} comes in the middle of a step of {length} "
                f"gradients; complete the step first"
            )
        others = self.clock.others
        companion = OTHERS in changes and takes_others(settings.cls)
        if "groups" in changes or companion:
            wanted = grouping.spec_of(self.settings, others)
            if "groups" in changes:
                wanted = {**changes["groups"], None: wanted.get(None)}
            if companion:
                wanted[None] = changes[OTHERS]
            settings, others = grouping.grouped(settings, scheduler or self.clock.scheduler, wanted, memo)
            replaced = "lr_scheduler" in changes
            others = schedules.going_on(settings, others, self.settings, self.clock.others, replaced=replaced)
        elif self.settings.groups:
            follow = scheduler if "lr_scheduler" in changes else None
            settings, others = grouping.regrouped(settings, self.settings, others, follow, memo)
        entries = {}
        for name, entry in cache.items():
            check_entry(settings.of(name, self.state.shape(name, entry)).rule, entry, name)
            entries[name] = copy_entry(entry)
        if settings.groups or self.settings.groups:
            self._check_kept(settings, {name: x for name, x in self.state.cache.items() if name not in entries})
        alike: dict[tuple[int, Any], Hashable] = {}
        for name, spec in self.state.specs().items():
            alike.setdefault((settings.of(name, spec.shape).number, spec), name)
        for (number, spec), name in alike.items():
            settings.numbered(number).check_fit(spec, name)
        state = self.state.with_entries({**self.state.cache, **entries}) if entries else None
        records = (self.state if state is None else state).records.items()
        goes_on = settings.runs_as(self.settings)
        old = self.settings
        pairs = [] if goes_on else [(x, _constants(old, name, x), _constants(settings, name, x)) for name, x in records]
        stale = [x for x, before, after in pairs if before != after]
        without = iter(stale)  # for to begin a loop over a list is to allocate one
        scale = self.scale if settings.dynamic == self.settings.dynamic else None
        passes = self.clock.passes if settings.accumulate == length else Passes()
        restarts = settings.drawn != self.settings.drawn
        remembered = self.clock.remembered()
        schedules.remember(remembered, scheduler, others, self.clock.others)
        states = {} if settings.drawn is None else settings.drawn.kept(remembered)
        numbers = None if settings.drawn is None else self.clock.last(settings.drawn, states)
        enter(WRITING)
        if state is not None:
            self.state.become(state)
        elif not goes_on:
            self.state.ownership.drop_plan()
        self.scale, self.clock.passes = scale, passes
        for record in without:
            record.slots = None
        self.settings = settings
        if scheduler is not None or others is not self.clock.others or restarts:
            self.clock.replace_schedulers(scheduler or self.clock.scheduler, others, numbers, states)

    def _check_kept(self, settings: Settings, entries: Mapping[Hashable, Any]) -> None:
        """Raise a ValueError if state that is there is none from which another algorithm can go on."""
        for name, entry in entries.items():
            shape = self.state.shape(name, entry)
            before, after = self.settings.of(name, shape), settings.of(name, shape)
            if before.cls is after.cls:
                continue
            try:
                left = () if after.rule.follows is None else after.rule.follows._fields
                if not isinstance(entry, dict) and before.rule.fields != after.rule.fields:
                    raise ValueError(f"an array, {', '.join(before.rule.fields)}")
                lost = [slot for slot in before.rule.own if slot not in (*after.rule.fields, *left)]
                if lost and isinstance(entry, dict) and not entry.keys().isdisjoint(lost):
                    raise ValueError(f"it keeps no {', '.join(lost)}")
                check_entry(after.rule, entry, name)
            except ValueError as error:
                raise ValueError(
                    f"{self.settings.cls.__name__}: groups give {show(name)} to {after.cls.__name__}, which cannot "
                    f"continue from the state of {before.cls.__name__} that is there ({error}); delete it with "
                    f"del opt.cache[{name!r}]"
                ) from None

    def _changed_scheduler(
        self, settings: Settings, changes: Mapping[str, Any], memo: dict[int, Any]
    ) -> SchedulerBase | None:
        """Return the schedule after `changes`, or None if they leave it alone."""
        lr, scheduler, cls = settings.values["lr"], self.clock.scheduler, settings.cls
        place = f"{cls.__name__}: lr"
        if "lr_scheduler" in changes:
            spec = changes["lr_scheduler"]
            if spec is None and "lr" not in changes and isinstance(scheduler, Following):
                return None
            return schedules.own_scheduler(cls, spec, lr, f"{place}_scheduler", memo)
        if "lr" not in changes:
            return None
        if isinstance(lr, Schedule) and type(scheduler) not in (ConstantScheduler, Following):
            raise ValueError(f"{place}={lr} and lr_scheduler={scheduler} are two schedules; add 'lr_scheduler': None")
        if scheduler.rate_name is None and not isinstance(scheduler, Following):
            return None
        return schedules.from_rate(cls, scheduler, lr, place, memo)

    def snapshot(self, memo: dict[int, Any]) -> Parts:
        """Return what is pickled: the state is taken down here, and may go on while the rest is pickled."""
        return Parts(self.settings, self.clock.settled(memo), self.state.snapshot(), self.skipped, self.scale)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts, in every protocol."""
        return Parts, (self.settings, self.clock, self.state, self.skipped, self.scale)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        """Return parts that go on alone."""
        clock, state = copy.deepcopy(self.clock, memo), copy.deepcopy(self.state, memo)
        return Parts(self.settings, clock, state, self.skipped, self.scale)


def _constants(settings: Settings, name: Hashable, record: Record) -> Mapping[str, Any]:
    return settings.of(name, record.spec.shape).constants
