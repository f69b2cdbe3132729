"""A graph as the body of a loop over elements: one emit loop for all languages that have expressions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from .._graph.node import TRUTHS, Graph, Node
from .host import bare, expression

_DEPTH = 6
"""How deep an expression of values without a name may nest."""


class Language(NamedTuple):
    """How a language writes what is done to one element.

    Parameters
    ----------
    operations : mapping
        For each operation of `FUNCTIONS`, its operands as ``{0}``, ``{1}``, ``{2}``. Operands that appear twice are
        names; parentheses are kept around what needs them in any language.
    number, mask : str
        How ``{name} = {value}`` is written for a number of the compute dtype, and for a truth value.
    reserved : collection of str
        Names that a value may not have.
    """

    operations: Mapping[str, str]
    number: str
    mask: str
    reserved: Collection[str]


class Body(NamedTuple):
    """What stands in the loop.

    Parameters
    ----------
    inputs : tuple of str
        The names that the elements of the graph's inputs have, in that order.
    numbers : tuple of (str, str)
        The name of each number of the step, in the order of `Graph.scalars`, and what it is.
    factors : tuple of str
        The names of the two numbers that clip the gradient, if it is clipped.
    lines : list of str
        Assignments, one a line.
    outputs : tuple of str
        The new ``param`` and slots, as expressions of what is assigned before.
    """

    inputs: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    factors: tuple[str, ...]
    lines: list[str]
    outputs: tuple[str, ...]


def emit(graph: Graph, language: Language) -> Body:
    """Write the loop's body; the order of every operation is the rule's own.

    Parameters
    ----------
    graph : Graph
        The traced rule.
    language : Language
        What to write it in.

    Returns
    -------
    Body
        Its parts.
    """
    taken = set(language.reserved)
    named = name_leaves(graph, taken)
    text = named.text
    values = graph.arrays()
    uses = Counter(arg for node in values for arg in node.args) + Counter(graph.outputs)
    repeated = {arg for node in values if _repeats(language.operations[node.op]) for arg in node.args}
    depth: dict[Node, int] = {}
    lines: list[str] = []
    for node in values:
        args = [text[arg] for arg in node.args]
        value = language.operations[node.op].format(*args)
        depth[node] = 1 + max(depth.get(arg, 0) for arg in node.args)
        kept = node in graph.names or uses[node] > 1 or node in repeated or depth[node] > _DEPTH
        if kept:
            text[node] = unique(graph.names.get(node, f"x{len(lines)}"), taken)
            depth[node] = 0
            lines.append((language.mask if node.kind in TRUTHS else language.number).format(text[node], bare(value)))
        else:
            text[node] = value
    outputs = tuple(bare(text[node]) for node in graph.outputs)
    return Body(named.inputs, named.numbers, named.factors, lines, outputs)


class Leaves(NamedTuple):
    """What a body is given, by name.

    Parameters
    ----------
    text : dict
        The name of each leaf of the graph.
    inputs, numbers, factors : tuple
        As for `Body`.
    """

    text: dict[Node, str]
    inputs: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    factors: tuple[str, ...]


def name_leaves(graph: Graph, taken: set[str]) -> Leaves:
    """Name what a graph is made of, as the rule does where that can be; the names are added to those `taken`."""
    inputs = tuple(unique(str(node.value).replace("s.", "s_"), taken) for node in graph.inputs)
    taken.update(f"at_{name}" for name in inputs)  # what their arrays are called
    text = dict(zip(graph.inputs, inputs, strict=True))
    numbers = []
    for i, node in enumerate(graph.scalars()):
        wanted = str(node.value) if node.op == "number" else graph.names.get(node, f"c{i}")
        text[node] = unique(wanted, taken)
        numbers.append((text[node], bare(expression(node))))
    factors = graph.factors()
    text.update({node: unique(str(node.value), taken) for node in factors})
    return Leaves(text, inputs, tuple(numbers), tuple(text[node] for node in factors))


def _repeats(operation: str) -> bool:
    places = re.findall(r"\{\d\}", operation)
    return len(set(places)) < len(places)


def unique(wanted: str, taken: set[str]) -> str:
    """Return an identifier of every language, like `wanted`, and take it."""
    name = wanted if wanted.isascii() and wanted.isidentifier() else "x"
    while name in taken:
        name += "_"
    taken.add(name)
    return name
