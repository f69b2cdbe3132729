"""What an optimizer is set to: hyperparameters and schedule, shown, checked and changed as a whole."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, Never

from .._arrays.parameter import Spec
from .._engine import choose
from .._graph.rule import NoSlots, Rule
from .._settings.once import once_for
from .._settings.peers import hint
from .._settings.ranges import Range
from .._settings.text import format_call, naming, short
from .._step.exclusive import SETTINGS, Turn
from ..schedulers import SchedulerBase, make_scheduler
from ..transforms.master import with_masters
from .cache import State
from .clock import Clock
from .entry import check_entry, copy_entry
from .interrupts import WRITING, enter
from .misuse import Guided
from .settings import (
    OPTIONS,
    Hyperparameters,
    changed_values,
    check_id,
    check_in_dtype,
    check_together,
    check_values,
    documented_names,
)


class Configured(Guided):
    """The part of an optimizer that is set to something; it has a clock and a state to keep in agreement with that."""

    slots: ClassVar[type[Any]] = NoSlots
    ranges: ClassVar[Mapping[str, Range]] = {}
    follows: ClassVar[bool] = False  # True where `_rule` selects among several: each goes on from the others' entries

    _values: dict[str, Any]
    _formula_now: Rule
    _settings: dict[str, Any]
    _guards: bool
    _draws: bool
    _clock: Clock
    _state: State
    _turn: Turn

    def _configure(self, scheduler: Any, values: dict[str, Any]) -> None:
        """Check what the constructor was given and take it over.

        Parameters
        ----------
        scheduler : None, str, mapping or SchedulerBase
            What the schedule is made of.
        values : dict
            The hyperparameters, options included; and ``"id"``, if that was given.
        """
        cls = type(self)
        if not hasattr(cls, "rule"):
            raise TypeError(f"{cls.__name__} has no rule; use one of its subclasses, or write one")
        check_id(cls, values.pop("id", cls.__name__))
        for name in values:
            if name in OPTIONS and name in cls.ranges:
                raise TypeError(f"{cls.__name__}.ranges declares {name!r}, which every optimizer has; use another name")
            if name not in ("lr", "clip_norm", *OPTIONS, *cls.ranges):
                raise TypeError(f"{cls.__name__} takes no keyword {short(name)}{hint(name, documented_names(cls))}")
        values = check_values(cls, values)
        check_together(cls, values)
        vars(self).update(self._settled(values))
        choose.begin(self._formula_now)
        self._clock = Clock(self._own_scheduler(scheduler, values["lr"]))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a hyperparameter, which would be ignored."""
        if name[0] != "_" and name != "lr_scheduler" and name in documented_names(type(self)):
            raise AttributeError(f"{type(self).__name__}.{name} is changed by set_params({{{name!r}: {short(value)}}})")
        super().__setattr__(name, value)

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The settings: ``"id"``, each value, and ``"lr_scheduler"`` as a string that parses back. Read-only.

        ``"lr"`` is the schedule's starting rate where it has one.
        """
        shown = self._shown()
        return Hyperparameters({"id": type(self).__name__, **shown, "lr_scheduler": str(self.lr_scheduler)})

    @property
    def lr_scheduler(self) -> SchedulerBase:
        """The schedule of the learning rate; assign what the constructor takes."""
        return self._clock.scheduler

    @lr_scheduler.setter
    def lr_scheduler(self, spec: str | Mapping[str, Any] | SchedulerBase | None) -> None:
        self.set_params({"lr_scheduler": spec})

    def set_params(
        self,
        hparam_dict: Mapping[str, Any] | None = None,
        cache_dict: Mapping[Hashable, Any] | None = None,
        **keywords: Never,
    ) -> None:
        """Change hyperparameters, restore state; all of it or, after an error, nothing.

        Parameters
        ----------
        hparam_dict : mapping, optional
            New values by name, as in `hyperparameters`. ``"lr"`` without ``"lr_scheduler"`` sets the starting rate of
            the present schedule, where it has one.
        cache_dict : mapping, optional
            Entries by parameter name, in the form of `cache`. Their arrays are copied; entries of other names stay.
        **keywords : object
            None; hyperparameters are given in `hparam_dict`.

        Raises
        ------
        KeyError
            A hyperparameter that this optimizer does not have.
        TypeError, ValueError
            A value of the wrong kind or out of its range, another optimizer's ``"id"``, or an entry of the wrong form.
        """
        if keywords:
            raise TypeError(f"set_params takes no keyword {next(iter(keywords))!r}; wanted a dict, {{'lr': 0.1}}")
        self._turn.change(SETTINGS, self._set_params, hparam_dict, cache_dict)

    def _set_params(self, hparam_dict: Mapping[str, Any] | None, cache_dict: Mapping[Hashable, Any] | None) -> None:
        changes = _mapping("hparam_dict", hparam_dict, "{'lr': 0.1}")
        values = changed_values(type(self), {**self._values, "lr": self._stated_lr()}, changes)
        scheduler = self._changed_scheduler(values["lr"], changes)
        entries, rule = {}, self._formula(values)
        for name, entry in _mapping("cache_dict", cache_dict, "opt.cache").items():
            check_entry(rule, entry, name)
            entries[name] = copy_entry(entry)
        for name, spec in self._state.specs().items():
            check_in_dtype(type(self), values, spec, name)
        settled = self._settled(values)
        state = self._state.with_entries({**self._state.cache, **entries}) if entries else None
        enter(WRITING)
        if state is not None:
            self._state.become(state)
        self._state.drop_kept()
        vars(self).update(settled)
        if scheduler is not None:
            self._clock.replace_scheduler(scheduler)

    def __repr__(self) -> str:
        """Write the call that makes an optimizer with these settings; `make_optimizer` reads it."""
        keywords = self._shown()
        for name, option in OPTIONS.items():
            if keywords.get(name) == option.default:
                del keywords[name]
        return format_call(type(self).__name__, keywords)

    def _rule(self, values: Mapping[str, Any]) -> Rule:
        """Return the rule that the hyperparameters select; an optimizer with more than one overrides this."""
        cls: Any = type(self)
        return _own_rule(cls)

    def _settled(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes that hyperparameters which have been checked come to."""
        return {
            "_values": values,
            "_formula_now": self._formula(values),
            "_settings": {name: value for name, value in values.items() if name not in OPTIONS},  # what rules read
            "_guards": values["nonfinite"] != "propagate",
            "_draws": values["rounding"] == "stochastic",
        }

    def _formula(self, values: Mapping[str, Any]) -> Rule:
        """Return the rule as the hyperparameters want it for each dtype."""
        rule = self._rule(values)
        return with_masters(rule) if values["master"] else rule

    def _check_new(self, spec: Spec, name: Hashable) -> None:
        check_in_dtype(type(self), self._values, spec, name)

    def _stated_lr(self) -> float:
        """Return the rate that the schedule starts from, else the one that was given."""
        scheduler = self.lr_scheduler
        if scheduler.rate_name is None:
            return self._values["lr"]
        return scheduler.hyperparameters[scheduler.rate_name]

    def _shown(self) -> dict[str, Any]:
        """Return the constructor's keywords and what they are now, in documented order."""
        now = {**self._values, "lr": self._stated_lr(), "lr_scheduler": self.lr_scheduler}
        return {name: now[name] for name in documented_names(type(self)) if name in now}

    def _changed_scheduler(self, lr: float, changes: Mapping[str, Any]) -> SchedulerBase | None:
        """Return the schedule after `changes`, or None if they leave it alone."""
        if "lr_scheduler" in changes:
            return self._own_scheduler(changes["lr_scheduler"], lr)
        if "lr" not in changes or self.lr_scheduler.rate_name is None:
            return None
        scheduler = self._copied(self.lr_scheduler)
        with naming(f"{type(self).__name__}: lr"):
            scheduler.set_params({self.lr_scheduler.rate_name: lr})
        return scheduler

    def _own_scheduler(self, spec: Any, lr: float) -> SchedulerBase:
        """Make a scheduler that no other optimizer shares."""
        with naming(f"{type(self).__name__}: lr_scheduler"):
            scheduler = make_scheduler(spec, lr=lr)
        return self._copied(scheduler) if scheduler is spec else scheduler

    def _copied(self, scheduler: SchedulerBase) -> SchedulerBase:
        """Return a copy, which refers to this optimizer where the schedule does."""
        return copy.deepcopy(scheduler, {id(self): self})


DERIVED = ("_formula_now", "_settings", "_guards", "_draws")
"""What `_settled` makes of the hyperparameters."""


def _own_rule(cls: Any) -> Rule:
    scalars = getattr(cls, "scalars", None)
    return once_for(cls, "_rule_once", lambda: Rule(cls.rule, cls.slots, scalars, cls.follows))


def _mapping(what: str, value: Mapping[Any, Any] | None, example: str) -> Mapping[Any, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{what} is a {type(value).__name__}; wanted a dict, such as {example}")
    return value or {}
