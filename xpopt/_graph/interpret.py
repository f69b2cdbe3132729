"""What a graph means: the standard's functions, one after the other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from .._arrays.typing import Array, Namespace, Scalars
from .node import Graph, Node

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


def interpret(graph: Graph, xp: Namespace, inputs: Mapping[str, Array], h: Scalars) -> tuple[Array, ...]:
    """Compute what a graph says.

    Parameters
    ----------
    graph : Graph
        The graph.
    xp : Namespace
        The functions of the arrays' library.
    inputs : mapping
        The arrays by name: ``param``, ``grad`` and the slots, as ``s.mean``; ``clip_scale`` and
        ``clip_factor``, if the gradient is clipped.
    h : Scalars
        The numbers.

    Returns
    -------
    tuple of array
        The new parameter and slots.
    """
    values: dict[Node, Any] = {node: inputs[str(node.value)] for node in graph.inputs}
    for node in graph.ordered():
        if node in values:
            continue
        args = [values[arg] for arg in node.args]
        if node.op == "constant":
            values[node] = node.value
        elif node.op == "number":
            values[node] = getattr(h, str(node.value))
        elif node.op == "factor":
            values[node] = inputs[str(node.value)]
        elif node.kind == "scalar":
            values[node] = ON_NUMBERS[node.op](*args)
        else:
            values[node] = getattr(xp, node.op)(*args)
    return tuple(values[node] for node in graph.outputs)
