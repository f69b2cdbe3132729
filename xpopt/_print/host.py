"""The numbers of a step, as Python that the host runs in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._arrays.typing import Scalars
from .._graph.node import Graph, Node

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


PREFIX = {"negative": "-", "abs": "abs"}


def expression(node: Node, names: Mapping[Node, str] | None = None, depth: int = 4) -> str:
    """Return a number of the rule as Python.

    Parameters
    ----------
    node : Node
        The number.
    names : mapping, optional
        What its arguments are called; without it they are written out, `depth` levels deep.

    Returns
    -------
    str
        The expression, with all its parentheses.
    """
    if node.op == "number":
        return f"h.{node.value}"
    if node.op == "one":
        return str(node.value)
    if node.op == "constant":
        value: Any = node.value
        if not math.isfinite(value):
            return f"float({str(value)!r})"
        return repr(value) if math.copysign(1, value) > 0 else f"({value!r})"
    if names is not None:
        args = [names[arg] for arg in node.args]
    else:
        args = [expression(arg, None, depth - 1) if depth else "..." for arg in node.args]
    if node.op in INFIX:
        return f"({args[0]} {INFIX[node.op]} {args[1]})"
    return f"{PREFIX[node.op]}({args[0]})"


def bare(text: str) -> str:
    """Drop the outermost parentheses if they are a pair."""
    if not (text.startswith("(") and text.endswith(")")):
        return text
    level = 0
    for i, character in enumerate(text):
        level += (character == "(") - (character == ")")
        if level == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text


def print_numbers(graph: Graph) -> Callable[[Scalars], tuple[Any, ...]]:
    """Return the function from `h` to the numbers of the step that meet arrays, in the order of `Graph.numbers`."""
    names: dict[Node, str] = {}
    lines = ["def numbers(h):"]
    for node in _folded(graph):
        text = expression(node, names)
        names[node] = text if node.op == "constant" else f"n{len(names)}"
        if node.op != "constant":
            lines.append(f"    {names[node]} = {text}")
    lines.append(f"    return ({''.join(f'{names[node]}, ' for node in graph.numbers())})")
    function: Callable[[Scalars], tuple[Any, ...]] = _compiled(lines, "numbers", graph)
    return function


def print_rows(graph: Graph, count: int) -> Callable[[Scalars, Sequence[float]], tuple[Any, ...]]:
    """Return the function from `h` and `count` learning rates to the numbers with each rate, row after row."""
    nodes, of_rate = _folded(graph), set[Node]()  # what is to be computed for each rate
    for node in nodes:
        if (node.op == "number" and node.value == "lr") or not of_rate.isdisjoint(node.args):
            of_rate.add(node)
    names: dict[Node, str] = {}
    rates = [f"lr{row}" for row in range(count)]
    lines, found = ["def rows(h, rates):", f"    {', '.join(rates)}, = rates"], []
    for node in nodes:
        if node not in of_rate:
            text = expression(node, names)
            names[node] = text if node.op == "constant" else f"n{len(names)}"
            if node.op != "constant":
                lines.append(f"    {names[node]} = {text}")
    for rate in rates:
        for node in nodes:
            if node in of_rate and node.op == "number":
                names[node] = rate
            elif node in of_rate:
                text, names[node] = expression(node, names), f"r{len(lines)}"
                lines.append(f"    {names[node]} = {text}")
        found += [names[node] for node in graph.numbers()]
    lines.append(f"    return ({''.join(f'{name}, ' for name in found)})")
    function: Callable[[Scalars, Sequence[float]], tuple[Any, ...]] = _compiled(lines, "rows", graph)
    return function


def _folded(graph: Graph) -> list[Node]:
    """Return the numbers that the host computes, and those that they are computed from."""
    return [node for node in graph.ordered() if node.kind == "scalar" and node.op not in ("factor", "one")]


def _compiled(lines: Sequence[str], name: str, graph: Graph) -> Any:
    scope: dict[str, Any] = {}
    exec(compile("\n".join(lines), f"<{name} of {graph.name}>", "exec"), scope)
    return scope[name]


def print_product(graph: Graph) -> Callable[..., Any]:
    """Return the function from ``grad`` and the numbers, in the order of `Graph.scalars`, to the one output."""
    names: dict[Node, str] = {node: f"c{i}" for i, node in enumerate(graph.scalars())}
    names[graph.inputs[0]] = "grad"
    lines = [f"def product({', '.join(['grad', *(names[node] for node in graph.scalars())])}):"]
    for node in graph.arrays():
        args = [names[arg] for arg in node.args]
        names[node] = f"x{len(lines)}"
        if node.op in PREFIX:
            text = f"{PREFIX[node.op]}({args[0]})"
        else:
            text = f" {INFIX['multiply' if node.op == 'square' else node.op]} ".join((args * 2)[:2])
        lines.append(f"    {names[node]} = {text}")
    lines.append(f"    return {names[graph.outputs[0]]}")
    function: Callable[..., Any] = _compiled(lines, "product", graph)
    return function
