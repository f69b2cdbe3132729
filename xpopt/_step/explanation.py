"""How a model would be updated, as a table."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Self

from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._engine import choose
from .._engine.group import Work
from .._state.cache import Task
from .._state.settings import Settings
from .draws import key_of


class ExplainedParameter(NamedTuple):
    """How one parameter would be updated."""

    name: Hashable
    engine: str
    launch: int  # parameters of one number are updated by one call of a kernel; eager ones have a number each
    state_bytes: int
    reason: str  # why no faster engine does it, or ""


class Explanation(tuple[ExplainedParameter, ...]):
    """A row for each parameter of a model; ``print`` it for a table."""

    __slots__ = ()

    @classmethod
    def of(cls, tasks: Mapping[Hashable, Task], settings: Settings) -> Self:
        """Explain the updates of `tasks`, checked as for an update, by an optimizer with these settings."""
        scalars = {t: settings.numbers_at(t) for t in {task[5] for task in tasks.values()}}
        works = []
        for name, (rule, library, spec, param, grad, t, slots, owned) in tasks.items():
            h, noise = scalars[t], key_of(settings.values, spec, name, t)
            works.append(Work(rule, library, spec, param, grad, slots, owned, h, None, noise, None))
        launches: dict[Any, int] = {}
        rows = []
        for (name, work), (engine, reason) in zip(zip(tasks, works, strict=True), choose.describe(works), strict=True):
            rule, _, spec, *_ = work
            alone = name if engine in ("eager", "blocked") else None
            launch = launches.setdefault((engine, rule, str(spec.dtype), spec.device, alone), len(launches) + 1)
            size = 1
            for count in spec.shape:
                size *= count
            itemsize = 8 if dtype_text(spec.compute) == "float64" else 4
            rows.append(ExplainedParameter(name, engine, launch, len(rule.fields) * size * itemsize, reason))
        return cls(rows)

    def __str__(self) -> str:
        """Write the table."""
        head = ("parameter", "engine", "launch", "state, bytes", "why not a faster one")
        rows = [(show(row.name), row.engine, str(row.launch), f"{row.state_bytes:,}", row.reason) for row in self]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)
