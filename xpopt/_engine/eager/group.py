"""Tensors of the eager engine: computed before anything is written, wherever their arrays lie."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar

from ..._arrays.containers import is_container
from ..._arrays.namespace import writer
from ..._arrays.parameter import check_out, examine
from ..._arrays.tree import show
from ..._arrays.typing import Array
from ..._graph.passes import passes_of
from ..._graph.questions import Question
from ..._graph.rule import NeedsModelError
from ..._graph.trace import InPlaceError, UntraceableError
from .. import kernels
from ..group import Bound, Launched, Members, Staged, StepNumbers
from ..kernel import Variant
from ..tensor import Tensor
from .kernel import Kernel
from .model import ModelSums, Unknown, with_model


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
        self._h, self._clipped = tensors[0].h, tensors[0].clipped

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
        try:
            computed = [self._compute(k, bound, numbers) for k in range(len(self._known))]
        except NeedsModelError:
            self.couples = True
            raise
        self.slots = []  # which are not kept beside the new ones
        return self._launched(bound, computed)

    def staged(self, bound: Bound, numbers: StepNumbers) -> Staged:
        """Compute everything: a rule that asks for the whole model is called again when that is known."""
        answers: dict[Question, Any] = {}
        for wanted in self._stages or ():
            said, _ = self._called(bound, numbers, answers, wanted)
            answers |= yield said
        said, computed = self._called(bound, numbers, answers, None if self._stages is None else ())
        while said:
            answers |= yield said
            said, computed = self._called(bound, numbers, answers, None)
        self.slots = []
        return self._launched(bound, computed)

    @property
    def questions(self) -> Collection[Question] | None:
        """What `staged` asks, if the rule has a graph."""
        return None if self._stages is None else frozenset[Question]().union(*self._stages)

    @functools.cached_property
    def _stages(self) -> list[set[Question]] | None:
        """What is asked together, as engines that fuse the rule ask; what nothing comes of is not asked."""
        try:
            return passes_of(self.rule, self._h, clipped=self._clipped).questions()
        except (InPlaceError, UntraceableError):
            return None

    def _called(
        self, bound: Bound, numbers: StepNumbers, answers: Mapping[Question, Any], wanted: Collection[Question] | None
    ) -> tuple[dict[Question, list[Any]], list[tuple[Any, Any]]]:
        """Call the rule for each tensor; return what these say to what is wanted, and what it returned."""
        computed, models = [], [ModelSums(library, answers, wanted) for _, library, _ in self._known]
        for k, model in enumerate(models):
            with contextlib.suppress(Unknown):
                computed.append(self._compute(k, bound, numbers, model))
        asked = models[0].found.keys()
        if any(model.found.keys() != asked for model in models):
            raise TypeError(
                f"{self.rule.name} reads h.model for some parameters only; read it for all of them, or return another "
                f"rule for the others in choose_rule"
            )
        return {question: [model.found[question] for model in models] for question in asked}, computed

    def _compute(self, k: int, bound: Bound, numbers: StepNumbers, model: Any = None) -> tuple[Any, Any]:
        """Return the new parameter and slots of a tensor."""
        name, library, spec = self._known[k]
        h = self.scalars(numbers)[self._row_of[k]]
        if model is not None:
            h = with_model(h, model)
        key = None if numbers.keys is None else numbers.keys[self.members[k]]
        param, grad, slots = bound.params[k], bound.grads[k], self.slots[k]
        try:
            return self._kernel.update(param, grad, slots, library, spec, h, key, numbers.proceed)
        except Exception as error:  # of a function of the user's own
            error.add_note(f"in the update of {show(name)}")
            raise

    def _launched(self, bound: Bound, computed: list[tuple[Any, Any]]) -> Launched:
        results = [new if out is None else out for out, (new, _) in zip(bound.outs, computed, strict=True)]
        pairs = zip(bound.outs, computed, strict=True)
        copies = [(writer(out), out, new) for out, (new, _) in pairs if out is not None]
        return Launched(results, [slots for _, slots in computed], functools.partial(_copy_all, iter(copies)))


def _copy_all(copies: Iterator[tuple[Callable[[Array, Array], None], Array, Array]]) -> None:
    for write, out, new in copies:
        write(out, new)
