"""The numbers of a step, as a Python expression that the host evaluates in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .._graph.node import Graph, Node
from .._typing import Scalars

INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "pow": "**",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "equal": "==",
    "not_equal": "!=",
}


def expression(node: Node) -> str:
    """Return a number of the rule as Python, fully parenthesised."""
    if node.op == "number":
        return f"h.{node.value}"
    if node.op == "constant":
        return repr(node.value) if math.isfinite(float(node.value or 0)) else f"float({str(node.value)!r})"
    args = [expression(arg) for arg in node.args]
    if node.op in INFIX:
        return f"({args[0]} {INFIX[node.op]} {args[1]})"
    return f"(-{args[0]})" if node.op == "negative" else f"abs({args[0]})"


def print_numbers(graph: Graph) -> Callable[[Scalars], tuple[Any, ...]]:
    """Return the function from `h` to the numbers that meet arrays, in the order of `Graph.scalars`."""
    source = "".join(f"{expression(node)}, " for node in graph.scalars())
    function: Callable[[Scalars], tuple[Any, ...]] = eval(compile(f"lambda h: ({source})", graph.name, "eval"))
    return function
