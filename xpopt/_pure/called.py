"""A rule that cannot be read, such as one with products of matrices: it is called, with arrays as its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._arrays.library import Library
from .._arrays.norms import clip
from .._arrays.typing import Scalars
from .._graph.questions import OfModel, Question
from .._graph.rule import Rule, StepScalars, taken_apart
from .formula import Asking


class Called:
    """What a rule computes of a parameter, by calling it.

    Numbers that do not change from step to step are what they are. Of the others, products are rounded where the
    parameter is, not on the host.

    Parameters
    ----------
    rule : Rule
        The rule of parameters of one dtype.
    h : Scalars
        The numbers of some step.
    settings : mapping
        The hyperparameters of the rule.
    drawn : set of str
        Which of them schedules draw.
    """

    def __init__(self, rule: Rule, h: Scalars, settings: Mapping[str, Any], drawn: set[str]) -> None:
        self._rule = rule
        self.clips = h.clip_norm is not None
        derived = vars(h).keys() - settings.keys() - {"t", "clip_norm"}
        self._names = sorted({"lr"} | (drawn | derived | {"cur_loss"}) & vars(h).keys())
        self._still = {name: x for name, x in vars(h).items() if name not in self._names and name != "t"}
        self.count = len(self._names) + self.clips

    def numbers(self, h: Scalars) -> list[float]:
        """Return the numbers of a step that change, and the largest norm of a gradient."""
        return [*(float(getattr(h, name)) for name in self._names), *([h.clip_norm] if self.clips else [])]

    def staged(self, library: Library, inputs: Sequence[Any], numbers: Sequence[Any], clip_norm: Any) -> Asking:
        """Do what `Formula.staged` does.

        Yields
        ------
        question : Question
        x : array

        Returns
        -------
        list of array
            The new parameter and slots.

        Raises
        ------
        TypeError
            The rule reads the count of updates.
        """
        answers: dict[Question, Any] = {}

        def answer(question: Question, x: Any) -> Any:
            if question not in answers:
                raise _Unknown(question, x)
            return answers[question]

        while True:
            h = _Numbers()
            h.__dict__.update(self._still, **dict(zip(self._names, numbers, strict=True)), model=OfModel(answer))
            try:
                return self._computed(library, inputs, h, clip_norm)
            except _Unknown as asked:
                question, x = asked.question, asked.x
            answers[question] = yield question, x

    def _computed(self, library: Library, inputs: Sequence[Any], h: Scalars, clip_norm: Any) -> list[Any]:
        param, grad, *slots = inputs
        state, functions = self._rule.make_slots(slots), library.of_rules
        if clip_norm is not None:
            measured = self._rule.measured
            grad = grad if measured is None else measured(functions, param, grad, state, h)
            grad = clip(library.xp, grad, clip_norm, float64=library.has_float64(grad))
        return taken_apart(self._rule, self._rule.function(functions, param, grad, state, h))


class _Numbers(StepScalars):
    """The numbers of a step, without the count."""

    def __getattr__(self, name: str) -> Any:
        if name == "t":
            raise TypeError(
                "a rule that cannot be traced reads h.t, which has too few digits in a pure form; compute what depends "
                "on it in scalars(h)"
            )
        return super().__getattr__(name)


class _Unknown(BaseException):
    """A rule asks for what is not known of the whole model yet; it is called again."""

    def __init__(self, question: Question, x: Any) -> None:
        super().__init__(question)
        self.question, self.x = question, x
