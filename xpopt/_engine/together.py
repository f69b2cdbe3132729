"""What is found of a whole model: each group says what its tensors come to, and all go on with one answer.

Launches of two dtypes, two rules or two libraries are added up before any of them writes. On one device that is done
there, and nothing waits; else it is the host that adds, in one order, so that numbers have the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import numpy as np

from .._arrays import sums
from .._arrays.library import Library
from .._arrays.norms import product_of_norms, root_of_norm
from .._graph.node import OF_MODEL
from .._graph.questions import Question
from .._graph.rule import NeedsModelError, StepScalars
from .group import Answers, Bound, Group, Launched, Staged, StepNumbers, Wanted

Together = Callable[[Sequence[tuple[str, float]]], Sequence[float]]
"""From numbers of this process, each with how it is joined (``"add"`` or ``"maximum"``), to those of all processes."""

_together: ContextVar[Together | None] = ContextVar("xpopt_together", default=None)


@contextmanager
def together(decide: Together) -> Iterator[None]:
    """Let several processes, each with a part of a model, find in this context what they do of the whole.

    Parameters
    ----------
    decide : callable
        From a list of pairs, how a number is joined with those of the others and the number, to what they come to. It
        is called once for each stage, on all processes alike, and raises in all of them what one has failed with.

    Yields
    ------
    None
        Nothing.
    """
    token = _together.set(decide)
    try:
        yield
    finally:
        _together.reset(token)


def is_together() -> bool:
    """Whether several processes decide together here."""
    return _together.get() is not None


def any_of_all(found: bool) -> bool:
    """Return whether something is so in any of the processes that decide together; alone, what was found."""
    decide = _together.get()
    return found if decide is None else bool(max(decide([("maximum", float(found))])))


def when_all_are_ready() -> None:
    """Wait until all processes that decide together have come here: what fails in one of them raises in all."""
    decide = _together.get()
    if decide is not None:
        decide([])


class OnDevice(NamedTuple):
    """What a tensor of a library other than NumPy has to say to a question about the model."""

    library: Library
    found: tuple[Any, ...]  # arrays of shape (); of a norm, two whose product it is, of which the first may be 1.0


_Result = TypeVar("_Result")


def alone(staged: Generator[Wanted, Answers, _Result]) -> _Result:
    """Return what comes of something that does not ask for the whole model."""
    try:
        next(staged)
    except StopIteration as stopped:
        result: _Result = stopped.value
        return result
    return StepScalars().model  # which raises


def launch_together(
    groups: Sequence[Group], bound: Sequence[Bound], numbers: StepNumbers, begun: Sequence[Launched]
) -> list[Launched]:
    """Launch groups that ask for what is found of the whole model, and others.

    Parameters
    ----------
    groups, bound, numbers : as for `Model.launch`
        The same.
    begun : sequence of Launched
        The first groups, if they are launched already.

    Returns
    -------
    list of Launched
        One for each group.

    Raises
    ------
    TypeError
        Two rules ask for the same in another order, so that one has its answer before the other asks.
    """
    launched = dict(enumerate(begun))
    asking: dict[int, _Asking] = {}
    answered: set[Question] = set()
    for i, (group, one) in enumerate(zip(groups, bound, strict=True)):
        if i in launched:
            continue
        if not group.couples:
            try:
                launched[i] = group.launch(one, numbers)
                continue
            except NeedsModelError:  # of a rule that runs eagerly, which is known by now
                pass
        asking[i] = _Asking(group, group.staged(one, numbers))
    for waiting in asking.values():
        waiting.begin()
    while True:
        for i, waiting in list(asking.items()):
            if waiting.launched is not None:
                launched[i] = waiting.launched
                del asking[i]
        if not asking:
            return [launched[i] for i in range(len(groups))]
        questions = _asked_by_all(list(asking.values()))
        if not questions or not answered.isdisjoint(questions):
            raise TypeError(
                "two rules of one model read h.model in different orders; let them read it in the same order, or "
                "use one optimizer for each"
            )
        answered.update(questions)
        answers = _answers(questions, list(asking.values()))
        for waiting in asking.values():
            waiting.take(answers)


class _Asking:
    """A launch on its way."""

    def __init__(self, group: Group, staged: Staged) -> None:
        self._staged, self.members = staged, group.members
        self._questions = group.questions
        self.open: dict[Question, Sequence[Any]] = {}
        self._answers: dict[Question, Any] = {}
        self.launched: Launched | None = None

    @property
    def is_known(self) -> bool:
        """Whether it is known what it will ask."""
        return self._questions is not None

    def waits_with(self, question: Question) -> bool:
        """Whether it has asked, or is not known to ask at all."""
        return question in self.open or self._questions is None or question not in self._questions

    def begin(self) -> None:
        self._go_on(None)

    def take(self, answers: Answers) -> None:
        for question in [question for question in self.open if question in answers]:
            self._answers[question] = answers[question]
            del self.open[question]
        if not self.open:
            answers, self._answers = self._answers, {}
            self._go_on(answers)

    def _go_on(self, answers: Any) -> None:
        try:
            self.open = dict(self._staged.send(answers))
        except StopIteration as stopped:
            self.launched = stopped.value


def _asked_by_all(asking: Sequence[_Asking]) -> list[Question]:
    """Return the questions that nobody will ask later: of whom that is not known, one that has asked all the same."""
    said = {question for one in asking for question in one.open}
    sure = sorted(question for question in said if all(one.waits_with(question) for one in asking))
    by_all = [question for question in sure if all(one.is_known or question in one.open for one in asking)]
    # what is left are guesses: transforms ask before the rule does, so that theirs are not asked later
    return by_all or [question for question in sure if question.owner] or sure


def _answers(questions: Sequence[Question], asking: Sequence[_Asking]) -> Answers:
    """Return what is found of the model."""
    said: dict[Question, list[Any]] = {}
    for question in questions:
        of_all = [pair for one in asking for pair in zip(one.members, one.open.get(question, ()), strict=False)]
        said[question] = [found for _, found in sorted(of_all, key=lambda pair: pair[0])]
    return answered(said)


def answered(said: Mapping[Question, list[Any]]) -> Answers:
    """Return what comes of what the parameters of a model have to say to some questions."""
    decide = _together.get()
    if decide is None and (library := _one_device([found for of in said.values() for found in of])) is not None:
        return {question: _on_device(library, question.op, of) for question, of in said.items()}
    return _on_host({question: list(map(_as_floats, of)) for question, of in said.items()}, decide)


def _one_device(said: Sequence[Any]) -> Library | None:
    """Return the library of arrays that are all on one device, other than the host that NumPy's arrays are on."""
    if not all(isinstance(found, OnDevice) for found in said):
        return None
    places = {(found.library.name, found.library.place(found.found[-1])) for found in said}
    return said[0].library if len(places) == 1 else None


def _on_device(library: Library, op: str, said: Sequence[OnDevice]) -> Any:
    def find(first: Any, *others: Any) -> Any:
        xp = library.xp
        if OF_MODEL[op] == "vector_norm":
            scale, rest = product_of_norms(xp, [found.found for found in said])
            return root_of_norm(xp, scale, rest) if op == "model_root" else scale * rest
        values = xp.stack([first, *others])
        return xp.max(values) if op == "model_max" else xp.sum(values)

    return library.guard(find)(*(found.found[-1] for found in said))


def _as_floats(found: Any) -> tuple[float, ...]:
    """Return what a tensor comes to on the host, for the ways of a reduction of float64."""
    if not isinstance(found, OnDevice):
        return tuple(found)
    values = [x if isinstance(x, float) else float(next(iter(found.library.to_numpy([x])))) for x in found.found]
    if len(values) == 1:
        return (values[0],)
    scale, rest = values
    return tuple(sums.squares_of(scale * rest))


def _on_host(said: dict[Question, list[tuple[float, ...]]], decide: Together | None) -> Answers:
    """Return what is found of what tensors come to, and those of other processes."""
    numbers: list[tuple[str, float]] = []
    ways = {question: sums.ways(OF_MODEL[question.op], wide=True) for question in said}
    for question, of in said.items():
        every = [sums.widened(found) if len(found) < len(ways[question]) else found for found in of]
        numbers += [(way.join, sums.joined(way, (found[k] for found in every))) for k, way in enumerate(ways[question])]
    values = iter([value for _, value in numbers] if decide is None else decide(numbers))
    with np.errstate(all="ignore"):
        return {question: _finished(question.op, [next(values) for _ in ways[question]]) for question in said}


def _finished(op: str, found: Sequence[float]) -> float:
    value = float(sums.finished(OF_MODEL[op], found, 1))
    if op != "model_root":
        return value
    return math.sqrt(value) if math.isfinite(value) else math.nan
