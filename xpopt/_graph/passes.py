"""A graph cut where it needs a whole array: passes that measure, and the one that updates.

Each is elementwise. A pass computes what is to be reduced from the inputs and from what earlier passes have found, and
writes nothing; the last one is the rest of the graph, in which each reduction is a number that is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    kept : tuple of (int, str)
        Which outputs later passes read instead of computing them again, and the names of these inputs.
    """

    parts: Parts
    reductions: tuple[Reduction, ...]
    kept: tuple[tuple[int, str], ...] = ()


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


def passes_of(rule: Rule, h: Scalars, *, clipped: bool, keep: bool = False) -> Passes:
    """Return what a rule computes in passes; as for `graph_of` and `cut`, one for each rule, `clipped` and `keep`."""
    graph, key = graph_of(rule, h, clipped=clipped), ("passes", clipped, keep)
    found: tuple[Graph, Passes] | None = rule.made.get(key)
    if found is None or found[0] is not graph:
        found = rule.made[key] = graph, cut(graph, keep=keep)
    return found[1]


def cut(graph: Graph, *, keep: bool = False) -> Passes:
    """Return a graph in as few passes as there are reductions that need each other.

    Parameters
    ----------
    graph : Graph
        The graph.
    keep : bool
        Whether later passes read what earlier ones have computed to reduce it.

    Returns
    -------
    Passes
        The passes.
    """
    if not graph.reductions():
        return Passes((), split(graph))
    levels: dict[Node, int] = {}
    leaves: dict[Node, Node] = {}
    for node in graph.ordered():
        reduces = node.op in REDUCTIONS or node.op in OF_MODEL
        levels[node] = max((levels[arg] for arg in node.args), default=0) + reduces
        if reduces:
            leaves[node] = Node("input", "one", value=f"reduced{len(leaves)}")
    known, kept = dict(leaves), dict[Node, Node]()
    cuts: list[tuple[list[Node], list[Node], Graph]] = []
    for level in range(1, max(levels[node] for node in leaves) + 1):
        mine = [node for node in leaves if levels[node] == level]
        below = tuple(leaf for node, leaf in leaves.items() if levels[node] < level)
        arrays = list(dict.fromkeys(node.args[0] for node in mine))
        cuts.append((mine, arrays, _without(graph, known, arrays, (*kept.values(), *below))))
        for node in arrays if keep else ():
            if node.args:
                known[node] = kept[node] = Node("input", "array", value=f"kept{len(kept)}")
    last = _without(graph, known, graph.outputs, (*kept.values(), *leaves.values()))
    read = {node for one in (*(one for *_, one in cuts), last) for node in one.ordered()}
    for one in (*(one for *_, one in cuts), last):
        one.inputs = tuple(node for node in one.inputs if node in read or node not in kept.values())
    before = []
    for mine, arrays, one in cuts:
        reductions = tuple(
            Reduction(
                str(leaves[node].value),
                OF_MODEL.get(node.op, node.op),
                arrays.index(node.args[0]),
                node.value if isinstance(node.value, Question) else None,
            )
            for node in mine
        )
        stored = tuple((k, str(kept[node].value)) for k, node in enumerate(arrays) if kept.get(node) in read)
        before.append(Pass(split(one), reductions, stored))
    return Passes(tuple(before), split(last))


def _without(graph: Graph, known: Mapping[Node, Node], outputs: Sequence[Node], more: tuple[Node, ...]) -> Graph:
    """Return what makes some nodes of a graph, with inputs in the place of those that are known; `more` are inputs."""
    new: dict[Node, Node] = {}
    for node in graph.ordered():
        args = tuple(new[arg] for arg in node.args)
        new[node] = known.get(node) or (node if args == node.args else Node(node.op, node.kind, args, node.value))
    names = {new[node]: name for node, name in graph.names.items() if node in new}
    return Graph(graph.name, graph.inputs + more, tuple(new[node] for node in outputs), names)
