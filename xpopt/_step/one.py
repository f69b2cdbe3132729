"""The update of one parameter: by the group of one that its last update left, if that fits, and else from the start."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

from .._arrays.parameter import check_out
from .._arrays.typing import Scalars
from .._engine import choose
from .._engine.choice import chosen
from .._engine.group import Single
from .._engine.start import complete
from .._graph.rule import Rule
from .._state.cache import State
from .._state.entry import Record
from .._state.settings import Settings
from .check import check
from .commit import Commit, count_in_place
from .draws import key_of


class OneUpdate:
    """The update of one parameter, checked.

    Parameters
    ----------
    state : State
        The optimizer's.
    settings : Settings
        The optimizer's.
    param, grad, name, out
        As for `OptimizerBase.update`.
    """

    def __init__(self, state: State, settings: Settings, param: Any, grad: Any, name: Hashable, out: Any) -> None:
        self._state = state
        self._settings = settings
        self._tensor = tensor = check(state, settings.rule, param, grad, name, settings.check_fit, settings.step)
        if out is not None:
            tensor.param, tensor.out = check_out(tensor.library, tensor.spec, tensor.param, out, name)
        self.rule, self.param, self.grad, self.t = tensor.rule, tensor.param, tensor.grad, tensor.t

    def prepare(self, h: Scalars, proceed: Any) -> None:
        """Do all that can fail.

        Parameters
        ----------
        h : Scalars
            The numbers of the step.
        proceed : array of bool, shape (), or None
            As for `Tensor`.
        """
        tensor, settings = self._tensor, self._settings
        tensor.h, tensor.proceed = h, proceed
        if settings.draws:
            tensor.key = key_of(settings.values, tensor.spec, tensor.name, tensor.t)
        complete(tensor)
        ((self.result,), (slots,), self._finish), self._single = choose.launch_one(tensor)
        self._commit: Commit | None = None
        if tensor.owned and (record := self._state.records[tensor.name]).slots is slots:
            self._record, self._count = record, [tensor.t]
        else:
            self._commit = Commit(self._state, [(tensor, slots)])
            (self._record,) = self._commit.records

    def finish(self) -> None:
        """Write the result and store the state."""
        if self._commit is None:
            self._finish()
            count_in_place(self._state, self._record, self._count)
        else:
            self._commit.around(self._finish)
            self._state.ownership.counts_moved = True

    def keep(self) -> None:
        """After all is stored, keep what makes the next update shorter."""
        if self._single is not None:
            with suppress(MemoryError):
                self._record.single = self._single, chosen(), self._settings, len(self.rule.made)


class BoundUpdate:
    """The update of one parameter by what its last update left.

    Parameters
    ----------
    state : State
        The optimizer's.
    record : Record
        What it knows of the parameter.
    single : Single
        The parameter with its slots.
    settings : Settings
        The optimizer's.
    param, grad, result : ndarray
        What is read, and where the result goes.
    name : hashable
        The parameter's name.
    """

    __slots__ = (
        "_count",
        "_finish",
        "_name",
        "_record",
        "_settings",
        "_single",
        "_state",
        "grad",
        "param",
        "result",
        "rule",
        "t",
    )

    def __init__(
        self,
        state: State,
        record: Record,
        single: Single,
        settings: Settings,
        param: Any,
        grad: Any,
        result: Any,
        name: Hashable,
    ) -> None:
        self._state = state
        self._record = record
        self._single = single
        self._settings = settings
        self._name = name
        self.param, self.grad, self.result = param, grad, result
        self.rule: Rule = single.rule
        self.t = record.count[0] + settings.step

    def prepare(self, h: Scalars, proceed: Any) -> None:
        """Do all that can fail; as for `OneUpdate`."""
        settings = self._settings
        key = key_of(settings.values, self._record.spec, self._name, self.t) if settings.draws else None
        self._finish: Callable[[], None] = self._single.launch(self.param, self.grad, self.result, h, key, proceed)
        self._count = [self.t]

    def finish(self) -> None:
        """Write the result, the slots in place, and count."""
        self._finish()
        count_in_place(self._state, self._record, self._count)

    def keep(self) -> None:
        """Do nothing: it is kept already."""


def bind(state: State, settings: Settings, param: Any, grad: Any, name: Hashable, out: Any) -> BoundUpdate | None:
    """Return the update of a parameter by what its last update left; None if there is nothing, or it does not fit."""
    try:
        record = state.records.get(name)
    except TypeError:  # told where the parameter is checked
        return None
    if record is None or record.single is None or record.mark != state.ownership.shown:
        return None
    single, choice, before, made = record.single
    rule = single.rule
    if single.slots is not record.slots or choice != chosen():
        return None
    if before is not settings:
        if not settings.runs_as(before):
            return None
        record.single = single, choice, settings, made
    # there may be a faster engine by now, or none any more
    if len(rule.made) != made or choose.changed(rule):
        return None
    if settings.rule is not rule and choose.changed(settings.rule):
        return None
    bound = single.bind(param, grad, out)
    return None if bound is None else BoundUpdate(state, record, single, settings, bound[0], grad, bound[1], name)
