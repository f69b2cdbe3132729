"""What the update of a model leaves for the next one."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

from .._arrays.layout import Layout
from .._arrays.parameter import as_number, is_number
from .._engine import choose, refusals
from .._engine.choice import chosen
from .._engine.group import Bound, Launched, StepNumbers
from .._engine.model import Model
from .._engine.tensor import Tensor
from .._state.entry import Record
from .._state.settings import Settings

Row = tuple[int, int]
"""The number of a group, or 0, and a count: what makes the numbers of a step differ."""


class Plan:
    """The groups that updated a model, and which of its parameters they update.

    Parameters
    ----------
    settings : Settings
        The optimizer's.
    names : list of hashable
        All parameters.
    model : Model
        The groups.
    places : list of int
        Which of `names` the model's tensors are.
    tensors : sequence of Tensor
        These themselves. Their arrays are not kept.
    records : list of Record
        What the state knows of these.
    """

    def __init__(
        self,
        settings: Settings,
        names: list[Hashable],
        model: Model,
        places: list[int],
        tensors: Sequence[Tensor],
        records: list[Record],
    ) -> None:
        self.settings = settings
        self._step = settings.step
        self.names = names
        self.layout = Layout(names)
        self.model = model
        self.places = places
        self.records = records
        self.groups = [tensor.group for tensor in tensors]
        """The numbers of the groups whose settings these have."""
        self.frozen = (
            {i for i, name in enumerate(names) if settings.of(name, None).frozen} if settings.groups else set()
        )
        self.draws = any(settings.numbered(group).draws for group in set(self.groups))
        self.others = sorted(set(range(len(names))).difference(places))
        """The rest, without a gradient."""
        self.counts: list[list[int]] = []
        """Of updates: one for each row of a step's numbers, in a list that the parameters of the row share."""
        self.group_of_row: list[int] = []
        self.differ_in_rate = False
        """Whether the rows of a step's numbers differ in nothing but the learning rate."""
        self._rules = list({one.rule: None for one in settings.each})
        self._choice = chosen()  # of the engine, where that was
        new = [i for group in model.groups if not group.in_place for i in group.members]
        self._new = {i: dataclasses.replace(tensors[i], param=None, grad=None, out=None, owned=True) for i in new}
        """The tensors that get new slots at each step."""
        self._waiting = {i for i in new if refusals.awaits_arrays(tensors[i])}
        self._in_place = {id(record) for i, record in enumerate(records) if i not in self._new}

    def fits(self, settings: Settings) -> bool:
        """Whether settings and engine are to run as those of the plan, and no rule has changed."""
        if self.settings is not settings:
            if not settings.runs_as(self.settings):
                return False
            self.settings = settings
            self.differ_in_rate = self._differ_in_rate()
        if self._choice != chosen() or self.model.is_outgrown():
            return False
        return not any(map(choose.changed, self._rules))

    def writes_any(self, records: Iterable[Record]) -> bool:
        """Whether the plan writes the slots of one of these parameters where they are."""
        return not self._in_place.isdisjoint(map(id, records))

    def count_together(self) -> bool:
        """Let parameters of one group and count share it; False if the model cannot go on with those that there are."""
        ts = [(group, record.t) for group, record in zip(self.groups, self.records, strict=True)]
        rows = sorted(set(ts))
        self.group_of_row, self.counts = [group for group, _ in rows], [[t] for _, t in rows]
        row = {key: k for k, key in enumerate(rows)}
        for record, key in zip(self.records, ts, strict=True):
            record.count = self.counts[row[key]]
        self.differ_in_rate = self._differ_in_rate()
        return self.model.set_rows([row[key] for key in ts])

    def _differ_in_rate(self) -> bool:
        of_rows = list(map(self.settings.numbered, self.group_of_row))
        one_count = len({t for (t,) in self.counts}) == 1
        return one_count and len(of_rows) > 1 and all(map(of_rows[0].differs_in_rate, of_rows[1:]))

    def next_counts(self) -> list[int]:
        """Return the next count of each row."""
        step = self._step
        return [t + step for (t,) in self.counts]

    def of(self, leaves: list[object]) -> list[object]:
        """Return those of all leaves that the groups update."""
        return leaves if not self.others else [leaves[i] for i in self.places]

    def bind(
        self, params: list[Any], grads: list[Any], outs: list[Any] | None
    ) -> tuple[list[Bound], list[Tensor]] | None:
        """Bind the arrays to the groups.

        Parameters
        ----------
        params, grads, outs
            As for `Model.bind`.

        Returns
        -------
        bound : list of Bound
            For each group.
        tensors : list of Tensor
            Those that get new slots; None instead of both if something does not fit, or a faster engine would take it.
        """
        bound = self.model.bind(params, grads, outs)
        if bound is None:
            return None
        tensors = []
        for i, tensor in self._new_tensors(bound) if self._new else ():
            if tensor.as_float != (outs is None and is_number(params[i])):
                return None
            if i in self._waiting and not refusals.awaits_arrays(tensor):
                return None
            tensors.append(tensor)
        return bound, tensors

    def _new_tensors(self, bound: list[Bound]) -> Iterator[tuple[int, Tensor]]:
        for group, (params, grads, outs, _) in zip(self.model.groups, bound, strict=True):
            for k, i in enumerate(() if group.in_place else group.members):
                known, record = self._new[i], self.records[i]
                tensor = Tensor(
                    known.name, known.rule, known.library, known.spec, params[k], grads[k], record.t + self._step
                )
                tensor.slots, tensor.owned, tensor.out, tensor.as_float = record.slots, True, outs[k], known.as_float
                yield i, tensor

    def launch(self, bound: list[Bound], numbers: StepNumbers) -> list[Launched]:
        """Do all that can fail, with a row of numbers for each of `counts`."""
        if self._new:
            for group in self.model.groups:
                if not group.in_place:
                    group.slots = [self.records[i].slots for i in group.members]
        return self.model.launch(bound, numbers)

    def new_slots(self, launched: list[Launched]) -> list[Any]:
        """Return the new slots, of those tensors that get some."""
        of_groups = zip(self.model.groups, launched, strict=True)
        return [slots for group, one in of_groups if not group.in_place for slots in one.slots]

    def results(self, launched: list[Launched]) -> list[Any]:
        """Return the result of each tensor; those of floats are floats, which cannot be written later."""
        results = self.model.each(launched, "results")
        for i, tensor in self._new.items():
            if tensor.as_float:
                results[i] = as_number(results[i])
        return results
