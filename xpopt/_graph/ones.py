"""A graph in two parts: what is made of slots that are one number, and what is made of arrays."""

from __future__ import annotations

from typing import NamedTuple

from .node import Graph, Node


class Parts(NamedTuple):
    """The parts of a graph.

    Parameters
    ----------
    ones : Graph or None
        From the slots that are one number to the numbers that meet arrays, in the order of the last `Graph.scalars` of
        the other part, and then to the new slots. Truth values are among the first. None where there are no such slots.
    arrays : Graph
        The rest: the graph itself, where there are none.
    """

    ones: Graph | None
    arrays: Graph


def split(graph: Graph) -> Parts:
    """Return the parts of a graph without reductions."""
    inputs = [node for node in graph.inputs if node.kind == "one"]
    if not inputs:
        return Parts(None, graph)
    new: dict[Node, Node] = {}
    made: dict[Node, Node] = {}  # what stands for a number in the part of arrays, and what it stands for

    def number(of: Node) -> Node:
        """Return what stands for a number, or a truth value, beside arrays."""
        if of not in new:
            stands = Node("one", "scalar", value=repr(of))
            made[stands] = of
            zero = Node("constant", "scalar", value=0.0)
            new[of] = stands if of.kind == "one" else Node("not_equal", "mask", (stands, zero))
        return new[of]

    for node in graph.ordered():
        if node.kind in ("array", "mask") and node.args:
            args = tuple(number(arg) if arg.kind in ("one", "flag") else new.get(arg, arg) for arg in node.args)
            new[node] = node if args == node.args else Node(node.op, node.kind, args, node.value)
    arrays = Graph(
        graph.name,
        tuple(node for node in graph.inputs if node.kind == "array"),
        tuple(new.get(node, node) for node in graph.outputs if node.kind == "array"),
        {new.get(node, node): name for node, name in graph.names.items() if node.kind != "flag"},
    )
    met = [made[node] for node in arrays.scalars() if node.op == "one"]
    outputs = (*met, *(node for node in graph.outputs if node.kind == "one"))
    return Parts(Graph(graph.name, tuple(inputs), outputs, graph.names), arrays)
