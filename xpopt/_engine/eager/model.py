"""What is found of the whole model, as a rule that runs eagerly asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..._arrays import sums
from ..._arrays.library import Library
from ..._arrays.norms import scaled_norm
from ..._arrays.typing import Array, Scalars
from ..._graph.node import OF_MODEL
from ..._graph.rule import StepScalars
from ..group import Question
from ..together import OnDevice


class Unknown(BaseException):
    """A rule asks for what is not known yet; it is called again.

    Parameters
    ----------
    question : Question
        What it asks for.
    found : object
        What its parameter has to say to that.
    """

    def __init__(self, question: Question, found: Any) -> None:
        super().__init__(question)
        self.question, self.found = question, found


class ModelSums:
    """What a rule reads as ``h.model`` for one parameter.

    Parameters
    ----------
    library : Library
        Whose array the parameter is.
    answers : mapping
        What is known.
    """

    def __init__(self, library: Library, answers: Mapping[Question, Any]) -> None:
        self._library, self._answers = library, answers
        self._counts = dict.fromkeys(OF_MODEL, 0)

    def sum(self, x: Array) -> Array:
        """Return the sum of an array of each parameter."""
        return self._ask("model_sum", x)

    def norm(self, x: Array) -> Array:
        """Return the L2 norm of an array of each parameter, all together."""
        return self._ask("model_norm", x)

    def max(self, x: Array) -> Array:
        """Return the largest element of an array of each parameter."""
        return self._ask("model_max", x)

    def _ask(self, op: str, x: Array) -> Array:
        question = op, self._counts[op]
        self._counts[op] += 1
        if question not in self._answers:
            raise Unknown(question, self._found(OF_MODEL[op], x))
        answer, library = self._answers[question], self._library
        if isinstance(answer, float):
            return library.full((), answer, x.dtype, x)
        number: Array = library.xp.astype(answer, x.dtype, copy=False)
        return number

    def _found(self, op: str, x: Array) -> Any:
        library = self._library
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
    found.__dict__.update(h.__dict__, model=model)
    return found
