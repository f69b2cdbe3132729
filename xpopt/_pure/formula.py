"""A rule as a function of its arrays and of the numbers of a step, which are arguments like them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from .._arrays.library import Library
from .._arrays.norms import clip_factor
from .._arrays.typing import Scalars
from .._graph.questions import Question
from .._graph.reading import graph_of
from .._graph.rule import Rule
from .._graph.trace import InPlaceError, UntraceableError
from .._print.host import print_numbers

Asking = Generator[tuple[Question, Any], Any, list[Any]]
"""A computation that yields questions with its own array, and is sent the answers."""


class Formula:
    """What a rule computes of a parameter, read once.

    Parameters
    ----------
    rule : Rule
        The rule of parameters of one dtype.
    h : Scalars
        The numbers of some step: which there are.

    Raises
    ------
    TypeError
        The rule cannot be read.
    """

    def __init__(self, rule: Rule, h: Scalars) -> None:
        self.clips = h.clip_norm is not None
        """Whether gradients are clipped by their norm."""
        try:
            graph = graph_of(rule, h, clipped=self.clips)
        except (InPlaceError, UntraceableError) as error:
            why = f"{rule.whole}; leave that option out" if rule.whole else str(error)
            raise TypeError(
                f"{rule.owner} has no pure form, since its rule cannot be traced: {why}; or use update_all"
            ) from error
        self._all = print_numbers(graph)
        met = graph.numbers()
        self._which = [k for k, node in enumerate(met) if node.op != "constant"]
        self.count = len(self._which) + self.clips
        """How many numbers it takes."""
        ordered = [*graph.inputs, *(met[k] for k in self._which)]
        self._given = len(ordered)
        ordered += [node for node in met if node.op == "constant"]
        factors = graph.factors()
        ordered += dict.fromkeys(factors)
        place = {node: k for k, node in enumerate(ordered)}
        self._values = [node.value if node.op == "constant" else None for node in ordered]
        self._clip = {node.value: place[node] for node in factors}
        self._steps = []
        for node in graph.arrays():
            if node in place:
                continue
            place[node] = len(self._values)
            self._values.append(None)
            self._steps.append((place[node], node, [place[arg] for arg in node.args]))
        self._outputs = [place[node] for node in graph.outputs]

    def numbers(self, h: Scalars) -> list[float]:
        """Return the numbers of a step in float64: those that the rule reads, and the largest norm of a gradient."""
        found = self._all(h)
        return [*(float(found[k]) for k in self._which), *([h.clip_norm] if self.clips else [])]

    def staged(self, library: Library, inputs: Sequence[Any], numbers: Sequence[Any], clip_norm: Any) -> Asking:
        """Compute the new parameter and slots.

        Parameters
        ----------
        library : Library
            Whose arrays these are.
        inputs : sequence of array
            The parameter, the gradient and the slots, all of the dtype of the arithmetic.
        numbers : sequence of float or array of shape ()
            In that dtype, without the largest norm.
        clip_norm : float or array of shape (), or None
            The largest norm, in the widest dtype that there is.

        Yields
        ------
        question : Question
            What is asked of the whole model.
        x : array
            What this parameter has to say to that.

        Returns
        -------
        list of array
            The new parameter and slots.
        """
        xp = library.of_rules
        found: list[Any] = [*self._values]
        found[: self._given] = [*inputs, *numbers]
        for k, node, args in self._steps:
            if isinstance(node.value, Question):
                found[k] = yield node.value, found[args[0]]
                continue
            if any(arg.op == "factor" and arg.value == "clip_scale" for arg in node.args):
                self._measure(library, found, found[args[0]], clip_norm)
            function = xp.linalg.vector_norm if node.op == "vector_norm" else getattr(xp, node.op)
            found[k] = function(*[found[arg] for arg in args])
        return [found[k] for k in self._outputs]

    def _measure(self, library: Library, found: list[Any], grad: Any, clip_norm: Any) -> None:
        """Put the two factors that clip a gradient in their places."""
        xp = library.xp
        factors = clip_factor(xp, grad, clip_norm, float64=library.has_float64(grad))
        for name, factor in zip(("clip_scale", "clip_factor"), factors, strict=True):
            if name in self._clip:
                found[self._clip[name]] = xp.astype(factor, grad.dtype)
