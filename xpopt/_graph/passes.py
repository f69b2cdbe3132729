"""A graph cut where it needs a whole array: passes that measure, and the one that updates.

Each is elementwise. A pass computes what is to be reduced from the inputs and from what earlier passes have found, and
writes nothing; the last one is the rest of the graph, in which each reduction is a number that is known.
"""

from __future__ import annotations

from typing import NamedTuple

from .._arrays.typing import Scalars
from .node import OF_MODEL, REDUCTIONS, Graph, Node
from .ones import Parts, split
from .questions import Question
from .reading import graph_of
from .rule import Rule


class Reduction(NamedTuple):
    """What a pass finds.

    Parameters
    ----------
    name : str
        What the parts of numbers of later passes call it.
    op : str
        One of `REDUCTIONS`.
    output : int
        Which output of the pass it is made of.
    of_model : Question or None
        What it answers, where it is of one array of each parameter together.
    """

    name: str
    op: str
    output: int
    of_model: Question | None


class Pass(NamedTuple):
    """What is found by one reading of all arrays.

    Parameters
    ----------
    parts : Parts
        What it computes: the outputs of its part of arrays are to be reduced.
    reductions : tuple of Reduction
        What is found.
    """

    parts: Parts
    reductions: tuple[Reduction, ...]


class Passes(NamedTuple):
    """A graph in passes.

    Parameters
    ----------
    before : tuple of Pass
        Those that measure.
    last : Parts
        What makes the outputs.
    """

    before: tuple[Pass, ...]
    last: Parts

    def questions(self) -> list[set[Question]]:
        """Return what is asked of the model, in the order of the passes that ask."""
        asked = [{of.of_model for of in one.reductions if of.of_model is not None} for one in self.before]
        return [questions for questions in asked if questions]


def passes_of(rule: Rule, h: Scalars, *, clipped: bool) -> Passes:
    """Return what a rule computes in passes; as for `graph_of`, one for each rule and `clipped`."""
    graph, key = graph_of(rule, h, clipped=clipped), ("passes", clipped)
    found: tuple[Graph, Passes] | None = rule.made.get(key)
    if found is None or found[0] is not graph:
        found = rule.made[key] = graph, cut(graph)
    return found[1]


def cut(graph: Graph) -> Passes:
    """Return a graph in as few passes as there are reductions that need each other."""
    if not graph.reductions():
        return Passes((), split(graph))
    levels: dict[Node, int] = {}
    new: dict[Node, Node] = {}
    leaves: dict[Node, Node] = {}
    for node in graph.ordered():
        reduces = node.op in REDUCTIONS or node.op in OF_MODEL
        levels[node] = max((levels[arg] for arg in node.args), default=0) + reduces
        args = tuple(new[arg] for arg in node.args)
        if reduces:
            new[node] = leaves[node] = Node("input", "one", value=f"reduced{len(leaves)}")
        else:
            new[node] = node if args == node.args else Node(node.op, node.kind, args, node.value)
    names = {new.get(node, node): name for node, name in graph.names.items()}
    before = []
    for level in range(1, max(levels[node] for node in leaves) + 1):
        mine = [node for node in leaves if levels[node] == level]
        outputs = tuple(dict.fromkeys(new[node.args[0]] for node in mine))
        known = tuple(leaf for node, leaf in leaves.items() if levels[node] < level)
        reductions = tuple(
            Reduction(
                str(leaves[node].value),
                OF_MODEL.get(node.op, node.op),
                outputs.index(new[node.args[0]]),
                node.value if isinstance(node.value, Question) else None,
            )
            for node in mine
        )
        before.append(Pass(split(Graph(graph.name, graph.inputs + known, outputs, names)), reductions))
    outputs = tuple(new.get(node, node) for node in graph.outputs)
    return Passes(tuple(before), split(Graph(graph.name, graph.inputs + tuple(leaves.values()), outputs, names)))
