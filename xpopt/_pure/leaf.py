"""One parameter of a pure step: what it is, what its state starts as, and its new value."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays.library import LOW, Library
from .._arrays.parameter import Spec, dtype_text
from .._arrays.typing import Array, Scalars
from .._engine.eager.kernel import joined_as, reals_of
from .._engine.rounding import round_stochastically
from .._engine.start import constant, dtype_of, started
from .._graph.questions import Question
from .._graph.rule import MASTER, Rule
from .._state.settings import Settings
from .called import Called
from .formula import Formula

SKIPPED = "skipped"
"""Among the slots of a parameter, how many steps were left out, where steps may be."""

Leaves = dict[str, Array]
"""The state of a parameter in a pure form: its slots by name."""


class Leaf(NamedTuple):
    """A parameter, apart from its values."""

    name: Hashable
    path: tuple[Hashable, ...]  # where it lies in its containers
    library: Library
    spec: Spec
    settings: Settings
    rule: Rule
    formula: Formula | Called | None  # None where it is frozen
    h: Scalars  # the numbers that its slots start with
    t: int  # the updates that it had when the pure form began
    device: str | None  # None where a function was being traced

    def start(self, param: Array, held: Any) -> Leaves:
        """Return its state, as it is or new."""
        if self.formula is None:
            return {}
        library, spec, rule = self.library, self.spec, self.rule
        slots = started(library, spec, rule, param, self.h, held)
        leaves = {name: slots[rule.fields.index(name)] for name in rule.kept}
        if self.settings.values["nonfinite"] == "skip":
            leaves[SKIPPED] = library.full((), 0, library.xp.int32, param)
        return leaves

    def step(
        self, param: Array, grad: Array, leaves: Mapping[str, Array], numbers: Sequence[Any], clip_norm: Any, key: Any
    ) -> Generator[tuple[Question, Any], Any, Stepped]:
        """Compute a step, yielding what is asked of the whole model."""
        assert self.formula is not None
        library, spec, rule, xp = self.library, self.spec, self.rule, self.library.xp
        held: list[Any] = [leaves.get(field) for field in rule.fields]
        slots = [
            constant(library, spec, of, param, self.h) if of.constant else x
            for x, of in zip(held, rule.specs, strict=True)
        ]
        compute = spec.compute
        old, grad = param, grad
        if spec.parts == 2:
            compute = spec.of_reals(library).dtype
            slots = list(reals_of(library, spec, rule, rule.make_slots(slots)))
            old, grad = library.reals(param), library.reals(grad)
        inputs = [xp.astype(x, compute, copy=False) for x in (old, grad, *slots)]
        if MASTER in rule.fields:
            inputs[0] = inputs[2 + rule.fields.index(MASTER)] = self._master(param, inputs)
        results = yield from self.formula.staged(library, inputs, numbers, clip_norm)
        if library.name == "numpy":  # which makes numbers of arrays of shape ()
            results = [np.asarray(x) for x in results]
        new, *new_slots = results
        if key is not None:
            new = xp.astype(round_stochastically(library, new, spec.dtype, key), compute)
        return Stepped(self, inputs, new, new_slots)

    def _master(self, param: Array, inputs: Sequence[Any]) -> Array:
        """Return the copy that is updated: the one that is kept, where the parameter is what it rounds to."""
        # the graph says so too, in arithmetic that a compiler changes which contracts products and sums: it gets both
        # its inputs alike, and the bits are compared here
        library, xp = self.library, self.library.xp
        master = inputs[2 + self.rule.fields.index(MASTER)]
        pair = xp.stack([xp.astype(master, self.spec.dtype), param])  # of one axis at least, as views want in Dask
        bits: Any = library.view(pair, xp.int16)
        return xp.where(bits[0, ...] == bits[1, ...], master, inputs[0])

    def is_rounded(self) -> bool:
        """Whether it is rounded stochastically."""
        return self.settings.draws and self.formula is not None and dtype_text(self.spec.dtype) in LOW


class Stepped(NamedTuple):
    """What a step comes to, in the dtype of the arithmetic."""

    leaf: Leaf
    inputs: list[Array]  # the parameter, the gradient and the slots
    new: Array
    new_slots: list[Array]

    def is_finite(self) -> list[Array]:
        """Return for the gradient and each result whether all of it is finite."""
        xp = self.leaf.library.xp
        changed = [x for x, of in zip(self.new_slots, self.leaf.rule.specs, strict=True) if not of.constant]
        return [xp.all(xp.isfinite(x)) for x in (self.inputs[1], self.new, *changed)]

    def ended(self, param: Array, leaves: Mapping[str, Array], proceed: Any) -> tuple[Array, Leaves]:
        """Return the new parameter and state in their own dtypes; those of before where `proceed` is false."""
        leaf = self.leaf
        library, spec, rule, xp = leaf.library, leaf.spec, leaf.rule, leaf.library.xp
        new, slots = self.new, self.new_slots
        if proceed is not None:
            new = xp.where(proceed, new, self.inputs[0])
            slots = [xp.where(proceed, x, old) for x, old in zip(slots, self.inputs[2:], strict=True)]
        if spec.parts == 2:
            new = library.from_reals(new, param)
            slots = [
                x if of.constant else joined_as(library, x, of, leaves[name])
                for x, of, name in zip(slots, rule.specs, rule.fields, strict=True)
            ]
        found = {
            name: xp.astype(x, dtype_of(library, spec, of), copy=False)
            for name, x, of in zip(rule.fields, slots, rule.specs, strict=True)
            if not of.constant
        }
        if SKIPPED in leaves:
            more = xp.astype(xp.logical_not(proceed), xp.int32)
            found[SKIPPED] = leaves[SKIPPED] + more
            if library.name == "numpy":
                found[SKIPPED] = np.asarray(found[SKIPPED])
        return library.result(xp.astype(new, spec.dtype, copy=False), param), found
