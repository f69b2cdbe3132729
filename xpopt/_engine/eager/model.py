"""What is found of the whole model, as a rule that runs eagerly asks for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ..._arrays import sums
from ..._arrays.library import Library
from ..._arrays.norms import scaled_norm
from ..._arrays.typing import Array, Scalars
from ..._graph.node import OF_MODEL
from ..._graph.questions import OfModel, Question
from ..._graph.rule import StepScalars
from ..together import OnDevice


class Unknown(BaseException):
    """A rule without a graph asks for what is not known yet; it is called again."""


class ModelSums:
    """Answers what a rule asks of ``h.model`` for one parameter.

    Parameters
    ----------
    library : Library
        Whose array the parameter is.
    answers : mapping
        What is known.
    wanted : collection of Question, or None
        What the rule is called for. It is given NaN for what else is not known: what is wanted is not made of that.
        None where nothing is known of the rule, which is then called for what it asks first.
    """

    def __init__(self, library: Library, answers: Mapping[Question, Any], wanted: Collection[Question] | None) -> None:
        self._library, self._answers, self._wanted = library, answers, wanted
        self.found: dict[Question, Any] = {}
        """What the parameter has to say to what is wanted."""

    def answer(self, question: Question, x: Array) -> Array:
        """Return what is known, and note what the parameter has to say to that."""
        library = self._library
        answer = self._answers.get(question)
        if answer is None:
            if self._wanted is None or question in self._wanted:
                self.found[question] = stated(self._library, OF_MODEL[question.op], x)
            if self._wanted is None:
                raise Unknown
            answer = math.nan
        if isinstance(answer, float):
            return library.full((), answer, x.dtype, x)
        number: Array = library.xp.astype(answer, x.dtype, copy=False)
        return number


def stated(library: Library, op: str, x: Array) -> Any:
    """Return what an array of one parameter has to say to a reduction of a model."""
    if library.name == "numpy":
        return sums.measured(op, x)
    xp, wide = library.xp, library.has_float64(x)
    if op == "vector_norm" and 0 not in x.shape:
        return OnDevice(library, scaled_norm(xp, x, float64=wide))
    x = xp.astype(x, xp.float64 if wide else xp.float32, copy=False)
    if op == "max":
        return OnDevice(library, (xp.max(x) if 0 not in x.shape else library.full((), -float("inf"), x.dtype, x),))
    return OnDevice(library, (*((1.0,) if op == "vector_norm" else ()), xp.sum(x)))


def with_model(h: Scalars, model: ModelSums) -> Scalars:
    """Return the numbers of a step with what is found of the model."""
    found = StepScalars()
    found.__dict__.update(h.__dict__, model=OfModel(model.answer))
    return found
