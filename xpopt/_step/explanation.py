"""How a model would be updated, as a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple, Self

from .._arrays.parameter import dtype_text
from .._arrays.tree import check_indices, flatten, show
from .._arrays.typing import Tree
from .._engine import choose
from .._engine.compiled.variants import variant_of
from .._engine.tensor import Tensor
from .._graph.slots import BYTES
from .._settings.companion import OTHERS
from .._settings.table import html_table
from .._state.groups import check_matched
from .._state.parts import Parts
from .._state.schedules import stated_lr
from .._state.settings import Settings
from ..schedulers.kinds.base import Schedule
from .check import check
from .draws import key_of


class _Row(NamedTuple):
    name: Hashable
    engine: str
    launch: int  # parameters of one number are updated by one call of a kernel; eager ones have a number each
    state_bytes: int
    reason: str  # why no faster engine does it, or ""


class ExplainedParameter(_Row):
    """How one parameter would be updated: a tuple of five, which has some attributes more."""

    group: str = ""
    """The pattern whose settings it has; empty for the optimizer's."""
    algorithm: str = ""
    """The name of the optimizer's class, or of the group's."""
    lr: float = 0.0
    """The rate from which its schedule starts; 0 where it is frozen."""
    decay: float = 0.0
    """Its weight decay, where the algorithm has one."""
    slots: tuple[str, ...] = ()
    """The names of its slots: those of the algorithm, and those of transforms such as ``average``."""


class Explanation(tuple[ExplainedParameter, ...]):
    """A row for each parameter of a model; it is shown as a table."""

    __slots__ = ()

    @classmethod
    def of(cls, parts: Parts, params: Tree) -> Self:
        """Explain the updates of a model by the optimizer of these parts; the parameters are checked as for one."""
        settings, state, leaves = parts.settings, parts.state, flatten(params, "params")
        check_indices(params, leaves, state.names)
        if settings.groups:
            check_matched(settings, leaves)
        tensors = [
            _tensor(parts, settings.of_array(name, param), name, param)
            for name, param in leaves.items()
            if not settings.of(name, None).frozen
        ]
        described = dict(zip((tensor.name for tensor in tensors), _rows(tensors), strict=True))
        slots = {tensor.name: tensor.rule.fields for tensor in tensors}
        rows = []
        for name, param in leaves.items():
            own = settings.of_array(name, param)
            row = ExplainedParameter(*described.get(name, _Row(name, "none", 0, 0, "it is frozen")))
            row.group = (settings.groups[own.number - 1].pattern or OTHERS) if own.number else ""
            row.algorithm = "" if own.frozen else own.cls.__name__
            lr = stated_lr(own, parts.clock.others.get(own.number, parts.clock.scheduler))
            row.lr = 0.0 if own.frozen else own.of_rule["lr"] if isinstance(lr, Schedule) else lr
            decay = 0.0 if own.frozen else own.values.get("weight_decay", 0.0)
            row.slots = slots.get(name, ())
            decay = getattr(decay, "weight_decay", decay)  # a transform is its number and more
            row.decay = own.of_rule["weight_decay"] if isinstance(decay, Schedule) else decay
            rows.append(row)
        return cls(rows)

    def _table(self) -> list[tuple[str, ...]]:
        """Return the head and the rows as text, without columns in which nothing differs between parameters."""
        columns = [(head, [write(row) for row in self]) for head, write in _COLUMNS.items()]
        shown = [(head, *texts) for head, texts in columns if head not in _OPTIONAL or len(set(texts)) > 1]
        return list(zip(*shown, strict=True))

    def __str__(self) -> str:
        """Write the table."""
        rows = self._table()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Write the table for a notebook."""
        head, *rows = self._table()
        return html_table(head, rows)


_COLUMNS: dict[str, Callable[[ExplainedParameter], str]] = {
    "parameter": lambda row: show(row.name),
    "group": lambda row: row.group,
    "algorithm": lambda row: row.algorithm,
    "lr": lambda row: f"{row.lr:g}",
    "decay": lambda row: f"{row.decay:g}",
    "engine": lambda row: row.engine,
    "launch": lambda row: str(row.launch),
    "state, bytes": lambda row: f"{row.state_bytes:,}",
    "why not a faster one": lambda row: row.reason,
}

_OPTIONAL = ("group", "algorithm", "lr", "decay")


def _tensor(parts: Parts, own: Settings, name: Hashable, param: Any) -> Tensor:
    tensor = check(parts.state, own.rule, param, param, name, own.check_fit)
    tensor.group, tensor.h = own.number, own.numbers_at(tensor.t)
    tensor.key = key_of(own.values, tensor.spec, tensor.name, tensor.t)
    return tensor


def _rows(tensors: list[Tensor]) -> Iterable[_Row]:
    launches: dict[Any, int] = {}
    for tensor, (engine, reason) in zip(tensors, choose.describe(tensors), strict=True):
        rule, spec = tensor.rule, tensor.spec
        alone = tensor.name if engine in ("eager", "blocked") else None
        whole = engine == "compiled" and variant_of(tensor).whole
        key = engine, rule, str(spec.dtype), spec.device, tensor.clipped, whole, alone
        launch = launches.setdefault(key, len(launches) + 1)
        forms = zip(rule.shapes(spec.shape), rule.dtypes(dtype_text(spec.compute)), strict=True)
        size = sum(math.prod(shape) * BYTES[dtype] for shape, dtype in forms)
        yield _Row(tensor.name, engine, launch, size, reason)
