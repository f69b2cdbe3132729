"""How a model would be updated, as a table."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Self

from .._arrays.parameter import dtype_text
from .._arrays.tree import show
from .._engine import choose
from .._engine.tensor import Tensor
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
    def of(cls, tensors: Sequence[Tensor], settings: Settings) -> Self:
        """Explain the updates of `tensors`, checked as for an update, by an optimizer with these settings."""
        scalars = {t: settings.numbers_at(t) for t in {tensor.t for tensor in tensors}}
        for tensor in tensors:
            tensor.h = scalars[tensor.t]
            tensor.key = key_of(settings.values, tensor.spec, tensor.name, tensor.t)
        launches: dict[Any, int] = {}
        rows = []
        for tensor, (engine, reason) in zip(tensors, choose.describe(tensors), strict=True):
            rule, spec = tensor.rule, tensor.spec
            alone = tensor.name if engine in ("eager", "blocked") else None
            launch = launches.setdefault((engine, rule, str(spec.dtype), spec.device, alone), len(launches) + 1)
            itemsize = 8 if dtype_text(spec.compute) == "float64" else 4
            size = sum(map(math.prod, rule.shapes(spec.shape))) * itemsize
            rows.append(ExplainedParameter(tensor.name, engine, launch, size, reason))
        return cls(rows)

    def __str__(self) -> str:
        """Write the table."""
        head = ("parameter", "engine", "launch", "state, bytes", "why not a faster one")
        rows = [(show(row.name), row.engine, str(row.launch), f"{row.state_bytes:,}", row.reason) for row in self]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)
