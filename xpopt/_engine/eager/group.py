"""Tensors of the eager engine: computed before anything is written, wherever their arrays lie."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from ..._arrays.namespace import writer
from ..._arrays.parameter import check_out, examine
from ..._arrays.tree import is_container, show
from ..._arrays.typing import Array
from .. import kernels
from ..group import Bound, Launched, Members, StepNumbers
from ..kernel import Variant
from ..tensor import Tensor
from .kernel import Kernel


class EagerGroup(Members):
    """Tensors of one rule, each updated by calls of its library's functions.

    All is computed before anything is written, so it does not matter where arrays lie. Slots are new at each step.
    """

    in_place: ClassVar[bool] = False
    bytes = None

    def __init__(self, members: list[int], tensors: list[Tensor]) -> None:
        super().__init__(members, tensors, [tensor.slots for tensor in tensors])
        assert tensors[0].h is not None
        self._kernel = kernels.made(Kernel, self.rule, tensors[0].h, Variant("eager"))
        self._known = [(tensor.name, tensor.library, tensor.spec) for tensor in tensors]
        self._row_of: list[int] = []

    @staticmethod
    def refuse(tensor: Tensor) -> str | None:
        """Return None: it takes every tensor."""
        return None

    @staticmethod
    def kind(tensor: Tensor) -> Any:
        """Return nothing: each is computed alone."""
        return None

    def set_rows(self, rows: list[int]) -> bool:
        """Say which row of numbers each tensor has."""
        self._row_of = self.take_rows(rows)
        return True

    def bind(self, params: list[Any], grads: list[Any], outs: list[Any] | None) -> Bound | None:
        """Take in what the caller gave, as at the first step."""
        targets = [None] * len(self.members) if outs is None else self.mine(outs)
        bound = Bound([], [], [], None)
        given = zip(self._known, self.mine(params), self.mine(grads), targets, strict=True)
        try:
            for (name, library, spec), param, grad, out in given:
                if not spec.fits(param, grad):
                    if is_container(param) or is_container(grad):
                        return None
                    _, found, param, grad = examine(param, grad, name)
                    if found != spec:
                        return None
                if out is not None:
                    param, out = check_out(library, spec, param, out, name)
                for role, x in zip(bound, (param, grad, out), strict=False):
                    role.append(x)
        except (TypeError, ValueError):  # told where all is checked
            return None
        return bound

    def launch(self, bound: Bound, numbers: StepNumbers) -> Launched:
        """Compute everything."""
        slots, self.slots = self.slots, []  # which are not kept beside the new ones
        results, kept, copies = [], [], []
        scalars = self.scalars(numbers)
        for k, (name, library, spec) in enumerate(self._known):
            h = scalars[self._row_of[k]]
            key = None if numbers.keys is None else numbers.keys[self.members[k]]
            param, out = bound.params[k], bound.outs[k]
            grad, proceed = bound.grads[k], numbers.proceed
            try:
                new, new_slots = self._kernel.update(param, grad, slots[k], library, spec, h, key, proceed)
            except Exception as error:  # of a function of the user's own
                error.add_note(f"in the update of {show(name)}")
                raise
            kept.append(new_slots)
            results.append(new if out is None else out)
            if out is not None:
                copies.append((writer(out), out, new))
        return Launched(results, kept, functools.partial(_copy_all, iter(copies)))


def _copy_all(copies: Iterator[tuple[Callable[[Array, Array], None], Array, Array]]) -> None:
    for write, out, new in copies:
        write(out, new)
