"""What a rule multiplies its gradient to, before anything else meets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .node import OF_MODEL, REDUCTIONS, Graph, Node

_LASTING = ("add", "subtract", "multiply", "negative", "abs", "square", "sqrt")
"""Operations of which the result is not finite if an argument is not; and so it is with what is divided."""


def products(graph: Graph) -> list[Graph]:
    """Return the products that spoil what the rule returns, if they are not finite.

    A product is made of the gradient and of numbers. It counts where nothing on the way to the result, as `where` or
    `minimum` may, makes an infinity finite; and where it goes to a slot, or the gradient is in it more than once.

    Parameters
    ----------
    graph : Graph
        Of a rule whose gradient is not clipped.

    Returns
    -------
    list of Graph
        One for each product that is not a part of another one: from ``grad`` to the product. Each grows with the
        magnitude of the gradient.
    """
    _, grad, *_ = graph.inputs
    degrees = _degrees(graph)
    of_slots, of_all = _lasting(graph.outputs[1:]), _lasting(graph.outputs)
    counted = [node for node, degree in degrees.items() if node in of_slots or (degree > 1 and node in of_all)]
    parts = {arg for node in counted for arg in node.args} | {grad}
    return [Graph(graph.name, (grad,), (node,)) for node in counted if node not in parts]


class Sizes(NamedTuple):
    """What a rule makes of norms and sums of its gradient.

    Parameters
    ----------
    products : Graph
        From ``grad`` to what is reduced.
    reductions : tuple of Node
        What each of these is reduced by, of one array or of a model.
    ones : tuple of Node
        Slots of one number that the gradient is multiplied with.
    found : Graph
        From what is reduced, and these, to what is to be finite: the former, and products that spoil what the rule
        returns.
    """

    products: Graph
    reductions: tuple[Node, ...]
    ones: tuple[Node, ...]
    found: Graph


def sizes(graph: Graph) -> Sizes | None:
    """Return what a rule, whose gradient is not clipped, makes of sizes of the gradient alone; None if nothing."""
    _, grad, *_ = graph.inputs
    degrees, lasting = _degrees(graph), _lasting(graph.outputs)
    leaves: dict[Node, Node] = {}
    new: dict[Node, Node] = {}
    for node in graph.ordered():
        if (node.op in REDUCTIONS or node.op in OF_MODEL) and node.args[0] in degrees:
            new[node] = leaves[node] = Node("input", "one", value=f"size{len(leaves)}")
        elif node.op in ("multiply", "square") and node in lasting and _is_of(new, node.args):
            new[node] = Node(node.op, "one", tuple(new.get(arg, arg) for arg in node.args))
    largest = Node("input", "one", value=f"size{len(leaves)}")
    ones, spoiling = _with_ones(graph, largest)
    if spoiling:
        leaves[Node("max", "one", (Node("abs", "array", (grad,)),))] = largest
    if not leaves:
        return None
    products = Graph(graph.name, (grad,), tuple(node.args[0] for node in leaves))
    found = Graph(graph.name, (*leaves.values(), *ones), (*new.values(), *spoiling))
    return Sizes(products, tuple(leaves), ones, found)


def _with_ones(graph: Graph, largest: Node) -> tuple[tuple[Node, ...], list[Node]]:
    """Return slots of one number, and their products with `largest`, the gradient's, that spoil what is returned."""
    _, grad, *slots = graph.inputs
    degrees: dict[Node, float] = {grad: 1, **dict.fromkeys((node for node in slots if node.kind == "one"), 0)}
    ones = {node: frozenset([node]) for node in slots if node.kind == "one"}
    made: dict[Node, Node] = {grad: largest, **{node: node for node in ones}}
    for node in graph.ordered():
        scaled = node.op == "divide" and node.args[1].kind == "scalar"
        if (scaled or node.op in ("multiply", "square", "negative", "abs")) and _is_of(made, node.args):
            degrees[node] = sum(degrees.get(arg, 0) for arg in node.args) * (2 if node.op == "square" else 1)
            ones[node] = frozenset().union(*(ones.get(arg, frozenset()) for arg in node.args))
            made[node] = Node(node.op, "one", tuple(made.get(arg, arg) for arg in node.args))
    of_slots, of_all = _lasting(graph.outputs[1:]), _lasting(graph.outputs)
    counted = [
        node
        for node, degree in degrees.items()
        if degree and ones.get(node) and (node in of_slots or (degree > 1 and node in of_all))
    ]
    parts = {arg for node in counted for arg in node.args}
    spoiling = [node for node in counted if node not in parts]
    return tuple({one: None for node in spoiling for one in ones[node]}), [made[node] for node in spoiling]


def _is_of(known: Mapping[Node, Node], args: tuple[Node, ...]) -> bool:
    """Whether something is made of what is known and of numbers alone."""
    return any(arg in known for arg in args) and all(arg in known or arg.kind == "scalar" for arg in args)


def _degrees(graph: Graph) -> dict[Node, float]:
    """Return how often the gradient is in each product."""
    _, grad, *_ = graph.inputs
    degrees: dict[Node, float] = {grad: 1}
    for node in graph.arrays():
        if degree := _degree(node, degrees):
            degrees[node] = degree
    return degrees


def _degree(node: Node, degrees: dict[Node, float]) -> float:
    """Return how often the gradient is in a product, 0 if the node is none."""
    first, *others = node.args
    if node.op == "multiply" and all(arg in degrees or arg.kind == "scalar" for arg in node.args):
        return sum(degrees.get(arg, 0) for arg in node.args)
    if node.op in ("square", "negative", "abs"):
        return degrees.get(first, 0) * (2 if node.op == "square" else 1)
    if node.op == "divide" and others[0].kind == "scalar":
        return degrees.get(first, 0)
    if node.op == "pow":
        return degrees.get(first, 0) * _power(node)
    return 0


def _power(node: Node) -> float:
    """Return the exponent of a power, 0 where it need not be above 0."""
    exponent = node.args[1]
    return max(exponent.value, 0) if exponent.op == "constant" and isinstance(exponent.value, int | float) else 0


def _lasting(results: tuple[Node, ...]) -> set[Node]:
    """Return the nodes that make one of the `results` not finite if they are not."""
    found: set[Node] = set()
    stack = list(results)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            if node.op in _LASTING:
                stack += node.args
            elif node.op == "divide" or (node.op == "pow" and _power(node)):
                stack.append(node.args[0])
    return found
