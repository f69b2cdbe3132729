"""The hyperparameters of an optimizer and of its groups, and what they come to: rules, and what updates ask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._arrays.elements import PerElement
from .._arrays.parameter import Spec
from .._arrays.tree import text_of
from .._arrays.typing import Scalars
from .._graph.rule import Rule, one_of
from .._graph.slots import check_specs
from .._settings.companion import OTHERS
from .._settings.misuse import no_name
from .._settings.values import changed_values, check_values, of_rules
from .._transforms.around import transformed
from .._transforms.gathering import gathering
from .._transforms.master import with_masters
from .._transforms.moduli import with_moduli
from .._transforms.narrow import with_slots_of
from .._transforms.order import active
from ..transforms.loss_scale import DynamicLossScale, LossScale
from ..transforms.maximize import Maximize
from .drawn import Draw, Drawn
from .draws import draws_of, draws_of_groups
from .fit import check_fit

if TYPE_CHECKING:
    from .group import Group

_NAMES_KEPT = 100_000
"""Names whose group is remembered: a program may never use one again."""


class Settings:
    """Hyperparameters that have been checked. Never changed, but replaced.

    Parameters
    ----------
    cls : type
        The optimizer's class: its name, `version`, `slots` and `ranges`, and the rule that it selects.
    values : dict
        Every hyperparameter and option by name, as `check_values` returns them.
    groups : tuple of Group
        Those of parameters that have others; those for parameters of other shapes come last.
    number : int
        In a group its number, from 1 on.
    frozen : bool
        Whether the parameters of the group stay as they are.
    """

    __slots__ = (
        *("_between", "_climbs", "_found", "_of_others", "accumulate", "cls", "draws", "dynamic", "frozen", "groups"),
        *("drawn", "guards", "number", "of_rule", "reads_loss", "rule", "step", "transforms", "values"),
    )

    def __init__(
        self,
        cls: type[Any],
        values: dict[str, Any],
        groups: tuple[Group, ...] = (),
        number: int = 0,
        frozen: bool = False,
    ) -> None:
        self.cls = cls
        self.values = values
        self._take_groups(groups)
        self.number = number
        self.frozen = frozen
        self.of_rule = of_rules(cls, values)
        self.transforms = active(cls, values)
        rule = one_of(cls.choose_rule(MappingProxyType(values)), cls.__name__)
        rule = self._transformed(with_moduli(rule, cls.moments) if _has_moduli(cls, values) else rule)
        draws = [*self._take_draws(), *draws_of_groups(cls, groups)]
        self.drawn = Drawn(draws) if draws else None
        """What schedules draw, for groups as well; None where there are none."""
        for one in rule.among or (rule,):
            check_specs(one.fields, one.specs, self.of_rule, cls.__name__)
        if values["slots_dtype"] is not None:
            rule = with_slots_of(rule, values["slots_dtype"])
        if rule.reads_loss:
            self.of_rule["cur_loss"] = 0.0  # until a step has one
        self.rule = with_masters(rule) if values["master"] else rule
        self.reads_loss: bool = rule.reads_loss or any(group.settings.reads_loss for group in groups)
        """Whether a step needs its loss."""
        self._climbs: bool = rule.reads_loss and any(isinstance(one, Maximize) for one in self.transforms)
        """Whether the rule reads a loss that is to rise: it gets the negative."""
        self.guards = values["nonfinite"] != "propagate"
        self.draws = values["rounding"] == "stochastic"
        self.accumulate: int = values["accumulate"] if cls._settings["accumulate"].option else 1
        self.dynamic = next((one for one in self.transforms if isinstance(one, DynamicLossScale)), None)
        self.step = 1
        """By how much an update counts."""
        self._between: Settings | None = None

    def _transformed(self, rule: Rule) -> Rule:
        """Return the rule with the transforms around it that are asked for, whose numbers it will read."""
        for one in self.transforms:
            for name, value in one.numbers().items():
                if name in self.of_rule:
                    raise TypeError(
                        f"{self.cls.__name__} has a hyperparameter {name!r}, and {type(one).__name__} a number of that "
                        f"name; rename one of them"
                    )
                self.of_rule[name] = value
        formulas = tuple(one.formula() for one in self.transforms)
        return transformed(rule, formulas, clipped=self.values["clip_norm"] is not None)

    def _take_draws(self) -> list[Draw]:
        """Put the number of step 0 in the place of each schedule; return what is to be drawn."""
        draws = draws_of(self.cls, self.transforms, self.of_rule, self.number)
        for draw in draws:
            self.of_rule[draw.name] = draw.first()
        return [draw for draw in draws if draw.name != "lr" and not self.frozen]  # the rate is drawn by the clock

    @classmethod
    def checked(cls, optimizer: type[Any], values: Mapping[str, Any]) -> Self:
        """Return the settings of values that came from outside.

        Parameters
        ----------
        optimizer : type
            The optimizer's class.
        values : mapping
            All that it needs.

        Returns
        -------
        Settings
            The settings.

        Raises
        ------
        TypeError, ValueError
            A value is not a number, out of its range, or without a meaning beside another.
        """
        values = check_values(optimizer, values)
        optimizer._check_together(values)
        return cls(optimizer, values)

    def changed(self, lr: float, changes: Mapping[str, Any]) -> Settings:
        """Return the settings after `changes` to these, of which `lr` is the present learning rate; without groups."""
        return Settings(self.cls, changed_values(self.cls, {**self.values, "lr": lr}, changes))

    def with_groups(self, groups: tuple[Group, ...]) -> Settings:
        """Return these settings with groups, which have been checked."""
        return Settings(self.cls, self.values, groups)

    @property
    def between(self) -> Settings:
        """Those of updates between whole steps: they add gradients up and count nothing."""
        if self._between is None:
            twin = object.__new__(Settings)
            for name in Settings.__slots__:
                setattr(twin, name, getattr(self, name))
            scaled = any(isinstance(one, LossScale) for one in self.transforms)
            twin.rule, twin.step, twin.draws = gathering(self.rule, scaled=scaled), 0, False
            twin.of_rule = {**self.of_rule, "clip_norm": None}
            twin._take_groups(tuple(group._replace(settings=group.settings.between) for group in self.groups))
            self._between = twin
        return self._between

    def _take_groups(self, groups: tuple[Group, ...]) -> None:
        self.groups = groups
        self._found: dict[Hashable, Settings] = {}
        instead = {group.pattern: group for group in groups if group.others}
        self._of_others = [instead.get(group.pattern, group) for group in groups if not group.others]
        if None in instead:
            self._of_others.append(instead[None])

    def of(self, name: Hashable, shape: Sequence[int] | None) -> Settings:
        """Return the settings of a parameter: those of the first group whose pattern its name matches, else these.

        Parameters
        ----------
        name : hashable
            Its name.
        shape : sequence of int, or None
            Its shape, which counts where other optimizers have other shapes; None for one that this optimizer takes.

        Returns
        -------
        Settings
            Without groups, but for these.
        """
        if not self.groups:
            return self
        others = self.companion is not None and shape is not None and len(shape) != self.cls.axes
        key = (name, OTHERS) if others else name
        try:
            return self._found[key]
        except TypeError:
            raise no_name(name) from None
        except KeyError:
            pass
        text = text_of(name)
        groups = self._of_others if others else [group for group in self.groups if not group.others]
        found = next((group.settings for group in groups if group.matches(text)), self)
        if len(self._found) >= _NAMES_KEPT:
            self._found.clear()
        self._found[key] = found
        return found

    def of_array(self, name: Hashable, x: Any) -> Settings:
        """Return the settings of a parameter that has not been checked yet."""
        if self.companion is None:
            return self.of(name, None)
        return self.of(name, x.shape if hasattr(x, "shape") else np.shape(x))

    @property
    def companion(self) -> Group | None:
        """The group of parameters of other shapes than this optimizer takes, if another one has them."""
        last = self._of_others[-1] if self._of_others else None
        return last if last is not None and last.pattern is None else None

    def numbered(self, number: int) -> Settings:
        """Return the settings of a group; these for 0."""
        return self.groups[number - 1].settings if number else self

    @property
    def each(self) -> tuple[Settings, ...]:
        """These, and those of each group by its number."""
        return (self, *(group.settings for group in self.groups))

    def runs_as(self, other: Settings) -> bool:
        """Whether updates by these can go on with what updates by `other` left: floats may differ, rules may not."""
        if self is other:
            return True
        patterns = ([(group.pattern, group.others) for group in settings.groups] for settings in (self, other))
        return next(patterns) == next(patterns) and all(map(_run_alike, self.each, other.each))

    def differs_in_rate(self, other: Settings) -> bool:
        """Whether a rule reads the same numbers of other settings without groups, whatever their learning rates are."""
        if self.rule is not other.rule or self.rule.scalars is not None or self.drawn or other.drawn:
            return False
        if self.of_rule.keys() != other.of_rule.keys() or self._climbs != other._climbs:
            return False
        pairs = ((value, other.of_rule[name]) for name, value in self.of_rule.items() if name != "lr")
        return all(a is b or (type(a) is type(b) is float and repr(a) == repr(b)) for a, b in pairs)  # 0.0 is not -0.0

    @property
    def constants(self) -> dict[str, PerElement]:
        """Return the arrays that stand in the place of numbers."""
        return {name: value for name, value in self.of_rule.items() if isinstance(value, PerElement)}

    def with_numbers(self, others: Mapping[str, Any] | None, drawn: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return the hyperparameters of the rule with the numbers of one step, and those that schedules draw."""
        if not self.step:  # between whole steps nothing is drawn, and nothing that was is read
            drawn = None
        if not others:
            return {**self.of_rule, **drawn} if drawn else self.of_rule
        if self._climbs:
            others = {**others, "cur_loss": -others["cur_loss"]}
        return {**self.of_rule, **(drawn or {}), **others}

    def numbers_at(
        self,
        t: int,
        lr: float | None = None,
        others: Mapping[str, Any] | None = None,
        drawn: Mapping[str, Any] | None = None,
    ) -> Scalars:
        """Return what the rule reads at a count and a learning rate, by default the one that was given.

        Parameters
        ----------
        t : int
            The count.
        lr : float, optional
            The rate.
        others : mapping, optional
            Numbers that are not those that were given.
        drawn : mapping, optional
            Numbers that schedules have drawn; by default, those of step 0.

        Returns
        -------
        Scalars
            All of them.
        """
        numbers = self.with_numbers(others, drawn) if others or drawn else self.of_rule
        return self.rule.scalars_at(numbers, self.of_rule["lr"] if lr is None else lr, t)

    def check_fit(self, spec: Spec, name: Hashable) -> None:
        """Raise a ValueError or TypeError unless a parameter can be updated with these, as `fit.check_fit` says."""
        check_fit(self, spec, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the values alone."""
        return Settings, (self.cls, self.values, self.groups, self.number, self.frozen)

    def __deepcopy__(self, memo: dict[int, Any]) -> Settings:
        """Return the same."""
        return self


def _run_alike(one: Settings, other: Settings) -> bool:
    """Whether two settings without groups have one rule, and all that is no float is equal."""
    if one.rule is not other.rule or one.of_rule.keys() != other.of_rule.keys():
        return False
    if (one.step, one.draws, one.frozen) != (other.step, other.draws, other.frozen):
        return False
    pairs = ((value, other.of_rule[name]) for name, value in one.of_rule.items())
    return all(a is b or type(a) is type(b) is float or a == b for a, b in pairs)


def _has_moduli(cls: type[Any], values: Mapping[str, Any]) -> bool:
    """Whether a complex parameter has one second moment; a class may have another setting of the name."""
    return bool(cls._settings["modulus"].option and values["modulus"])
