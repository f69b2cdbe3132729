"""What a graph means: the standard's functions, one after the other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .node import Graph

ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "pow": operator.pow,
    "negative": operator.neg,
    "abs": operator.abs,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
}
"""What the operators do to Python numbers."""


def function_of(xp: Namespace, op: str) -> Callable[..., Any]:
    """Return a function of the standard, such as one that reduces a whole array."""
    function: Callable[..., Any] = getattr(xp.linalg if op == "vector_norm" else xp, op)
    return function


def interpret(graph: Graph, xp: Namespace) -> Callable[[Mapping[str, Array], Scalars], list[Array]]:
    """Return what computes a graph, one function after the other.

    Parameters
    ----------
    graph : Graph
        The graph, without sums of a model.
    xp : Namespace
        The functions of the arrays' library, as a rule gets them.

    Returns
    -------
    callable
        From the arrays by name (``param``, ``grad`` and the slots, as ``s.mean``; ``clip_scale`` and ``clip_factor``,
        if the gradient is clipped) and the numbers of a step to the new parameter and slots.
    """
    ordered = [*graph.inputs, *(node for node in graph.ordered() if node not in graph.inputs)]
    place = {node: k for k, node in enumerate(ordered)}
    values = [node.value if node.op == "constant" else None for node in ordered]
    named = [(k, str(node.value)) for k, node in enumerate(ordered) if k < len(graph.inputs) or node.op == "factor"]
    numbers = [(k, str(node.value)) for k, node in enumerate(ordered) if node.op == "number"]
    steps = [
        (
            k,
            ON_NUMBERS[node.op] if node.kind == "scalar" else function_of(xp, node.op),
            [place[arg] for arg in node.args],
        )
        for k, node in enumerate(ordered)
        if node.args
    ]
    outputs = [place[node] for node in graph.outputs]

    def compute(inputs: Mapping[str, Array], h: Scalars) -> list[Array]:
        found: list[Any] = [*values]
        for k, name in named:
            found[k] = inputs[name]
        for k, name in numbers:
            found[k] = getattr(h, name)
        for k, function, args in steps:
            found[k] = function(*[found[arg] for arg in args])
        return [found[k] for k in outputs]

    return compute
