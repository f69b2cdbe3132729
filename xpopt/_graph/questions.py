"""What a rule and its transforms ask of a whole model, told apart by who asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from .._arrays.typing import Array


class Question(NamedTuple):
    """What is asked of a model: the same of all parameters for which it is asked.

    Parameters
    ----------
    owner : str
        The transform that asks; empty for the rule itself, whichever of several that is.
    op : str
        One of `OF_MODEL`.
    place : int
        How many of its kind the same one asks before it.
    """

    owner: str
    op: str
    place: int


class OfModel:
    """What a rule reads as ``h.model``, and each transform, which counts its own questions.

    Parameters
    ----------
    answer : callable
        From a question and the array that it is about to what is found.
    owner : str
        As for `Question`.
    counts : dict, optional
        How many questions of each kind each owner has asked.
    """

    def __init__(
        self,
        answer: Callable[[Question, Any], Any],
        owner: str = "",
        counts: dict[tuple[str, str], int] | None = None,
    ) -> None:
        self._answer, self._owner = answer, owner
        self._counts = {} if counts is None else counts

    def of(self, owner: str) -> OfModel:
        """Return what a transform reads."""
        return OfModel(self._answer, owner, self._counts)

    def sum(self, x: Array) -> Any:
        """Return the sum of an array of each parameter."""
        return self._ask("model_sum", x)

    def norm(self, x: Array) -> Any:
        """Return the L2 norm of an array of each parameter, all together."""
        return self._ask("model_norm", x)

    def root_of_norm(self, x: Array) -> Any:
        """Return the square root of the norm: no dtype is too narrow for it. NaN where the norm is not finite."""
        return self._ask("model_root", x)

    def max(self, x: Array) -> Any:
        """Return the largest element of an array of each parameter."""
        return self._ask("model_max", x)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"it calls h.model.{name}, which is none of sum, norm and max")

    def _ask(self, op: str, x: Array) -> Any:
        place = self._counts.get((self._owner, op), 0)
        self._counts[self._owner, op] = place + 1
        return self._answer(Question(self._owner, op, place), x)
