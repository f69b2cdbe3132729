"""What the update of a model leaves for the next one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from .._arrays.layout import Layout
from .._engine import choose
from .._engine.model import Model
from .._graph.rule import Rule
from .._state.entry import Record


class Plan:
    """The groups that updated a model, and which of its parameters they update.

    Parameters
    ----------
    rule : Rule
        The formula.
    names : list of hashable
        All parameters.
    model : Model
        The groups.
    places : list of int
        Which of `names` the model's tensors are.
    records : list of Record
        What the state knows of these.
    stay : set of int
        Which others are updated eagerly though an engine that fuses takes their arrays.
    """

    def __init__(
        self,
        rule: Rule,
        names: list[Hashable],
        model: Model,
        places: list[int],
        records: list[Record],
        stay: set[int],
    ) -> None:
        self.rule = rule
        self.names = names
        self.layout = Layout(names)
        self.model = model
        self.places = places
        self.records = records
        self.stay = stay
        self.others = sorted(set(range(len(names))).difference(places))
        """The rest: updated eagerly, or without a gradient."""
        self.choice = choose.chosen()  # of the engine, where that was
        self.counts: list[list[int]] = []
        """Of updates: one for each row of a step's numbers, in a list that the parameters of the row share."""
        self._ids = set(map(id, records))

    def fits(self, rule: Rule) -> bool:
        """Whether the formula and the choice of an engine are those of the plan."""
        return self.rule is rule and self.choice == choose.chosen() and not choose.changed(rule)

    def has_any(self, records: Iterable[Record]) -> bool:
        """Whether one of these parameters is updated by the plan."""
        return not self._ids.isdisjoint(map(id, records))

    def count_together(self) -> bool:
        """Let parameters of one count share it; False if the groups cannot go on with the counts that there are."""
        ts = [record.t for record in self.records]
        counts = sorted(set(ts))
        self.counts = [[t] for t in counts]
        row = {t: k for k, t in enumerate(counts)}
        for record, t in zip(self.records, ts, strict=True):
            record.count = self.counts[row[t]]
        return self.model.set_rows([row[t] for t in ts])

    def of(self, leaves: list[object]) -> list[object]:
        """Return those of all leaves that the groups update."""
        return leaves if not self.others else [leaves[i] for i in self.places]
