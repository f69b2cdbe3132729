"""Tensors of Dask whose rule is elementwise: one task updates a chunk, in place of one for each operation."""

from __future__ import annotations

import functools
import importlib
import uuid
from collections.abc import Callable
from typing import Any

from ..._arrays.library import Library
from ..._arrays.norms import clip_factor
from ..._arrays.parameter import Spec
from ..._arrays.typing import Scalars
from ..._graph.reading import graph_of
from ..._graph.rule import Rule, StepScalars
from ..._graph.trace import InPlaceError, UntraceableError
from ..eager.group import EagerGroup
from ..group import Launched
from ..numbers import Key
from ..start import dtype_of, started
from ..tensor import Tensor
from .task import Job, item


class ChunkedGroup(EagerGroup):
    """Tensors in chunks, of which each is updated by an engine of the process that has it.

    Nothing is computed here: results are lazy. Slots are arrays of their own, in the chunks of the parameter.
    """

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        super().__init__(members, tensors)
        self._kernel = _Kernel(self.launch_chunk, self.rule)  # type: ignore[assignment]

    @staticmethod
    def launch_chunk(tensor: Tensor) -> tuple[Launched, Any]:
        """Choose an engine for a chunk, and do all that its update needs."""
        raise NotImplementedError

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return why the operations of the rule are to be tasks of their own, or None if a task updates a chunk."""
        rule, h = tensor.rule, tensor.h
        assert h is not None
        if tensor.key is not None:
            return "stochastic rounding counts the places of a whole array"
        if not rule.fused:
            return rule.whole or "its class declares fused = False"
        if any(of.shape is not None or of.constant for of in rule.specs):
            return "a slot, or an array among the settings, is not in the chunks of the parameter"
        if tensor.clipped and (rule.measured is not None or tensor.spec.parts == 2):
            return "clip_norm measures what is no gradient of real numbers as it came"
        try:
            graph = graph_of(rule, h, clipped=tensor.clipped)
        except (InPlaceError, UntraceableError) as error:
            return str(error)
        return "its rule reduces whole arrays, which lie in chunks" if graph.reductions() else None


class _Kernel:
    """What adds the updates of all chunks of a tensor to a graph.

    Parameters
    ----------
    launch : callable
        As for `Job`.
    rule : Rule
        The rule.
    """

    def __init__(self, launch: Callable[[Tensor], Any], rule: Rule) -> None:
        self._launch, self._rule = launch, rule

    def update(
        self, param: Any, grad: Any, slots: Any, library: Library, spec: Spec, h: Scalars, key: Key | None, proceed: Any
    ) -> tuple[Any, Any]:
        """Do what `update` of the eager engine does."""
        return library.guard(self._updated)(param, grad, slots, library, spec, h, proceed)

    def _updated(
        self, param: Any, grad: Any, slots: Any, library: Library, spec: Spec, h: Scalars, proceed: Any
    ) -> tuple[Any, Any]:
        rule, xp, clipped = self._rule, library.xp, h.clip_norm is not None
        slots = started(library, spec, rule, param, h) if slots is None else slots
        given = [param, *(library.pieces(x, param) for x in (grad, *slots))]
        if clipped:
            wide = xp.astype(given[1], spec.compute, copy=False)
            given += clip_factor(xp, wide, h.clip_norm, float64=True)
        if proceed is not None:
            given.append(proceed)
        job = Job(self._launch, _pickled(rule), _unclipped(h), clipped=clipped, skips=proceed is not None)
        blockwise, axes, token = importlib.import_module("dask.array").blockwise, range(param.ndim), uuid.uuid4().hex
        pairs = [part for x in given for part in (x, axes if x.ndim == param.ndim else ())]
        none = param._meta.astype(object)
        both = {"align_arrays": False}
        whole = blockwise(job, axes, *pairs, name=f"xpopt-update-{token}", dtype=object, meta=none, **both)
        dtypes = [spec.dtype, *(dtype_of(library, spec, of) for of in rule.specs)]
        new = [
            blockwise(
                *(functools.partial(item, k), axes, whole, axes),
                name=f"xpopt-{field}-{token}",
                dtype=dtype,
                meta=param._meta.astype(dtype),
                **both,
            )
            for k, (field, dtype) in enumerate(zip(("param", *rule.fields), dtypes, strict=True))
        ]
        return new[0], rule.make_slots(new[1:])


def _pickled(rule: Rule) -> bytes:
    """Return a rule as bytes, by value where other processes could not import it."""
    if "pickled" not in rule.made:
        rule.made["pickled"] = importlib.import_module("cloudpickle").dumps(rule)  # which Dask brings
    pickled: bytes = rule.made["pickled"]
    return pickled


def _unclipped(h: Scalars) -> Scalars:
    numbers = StepScalars()
    numbers.__dict__.update(vars(h), clip_norm=None)
    return numbers
