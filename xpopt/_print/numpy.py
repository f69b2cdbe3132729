"""A graph as NumPy calls that write into given arrays, one line a value: ``multiply(c0, mean, new_mean)``."""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple

from .._graph.node import Graph, Node
from .._graph.trace import FUNCTIONS
from .host import bare, expression

UFUNCS = {"pow": "power", "abs": "absolute"}
"""NumPy's names where they are not the standard's."""

CALLED = {"copyto", "putmask", *(UFUNCS.get(op, op) for op in FUNCTIONS if op != "where")}
"""The functions of NumPy that a kernel calls by their bare names."""


class NumPySource(NamedTuple):
    """A printed kernel.

    Parameters
    ----------
    text : str
        A function ``kernel(inputs..., outputs..., scratch..., masks..., numbers...)`` of arrays of one shape, and of
        numbers as arrays of shape ().
    scratch, masks : int
        How many arrays of the compute dtype, and of booleans, it needs to work in.
    numbers : int
        How many numbers it takes; the last two clip the gradient, if the graph does.
    """

    text: str
    scratch: int
    masks: int
    numbers: int


class _Pool:
    """Names of arrays to work in: as few as are in use at once."""

    def __init__(self, prefix: str) -> None:
        self.names: list[str] = []
        self._prefix = prefix
        self._free: list[str] = []

    def take(self) -> str:
        if not self._free:
            self.names.append(f"{self._prefix}{len(self.names)}")
            return self.names[-1]
        return self._free.pop()

    def give(self, name: str) -> None:
        self._free.append(name)


def print_numpy(graph: Graph, *, stored: bool = True) -> NumPySource:
    """Print a graph for NumPy.

    Parameters
    ----------
    graph : Graph
        What to print.
    stored : bool
        Whether its outputs are the new values of its inputs but the gradient. If not, they are any, and share no memory
        with an input.

    Returns
    -------
    NumPySource
        The kernel. It writes its outputs whole. Each may be the very memory of the input of its name, and may not
        share memory with another input.
    """
    inputs = _names([str(node.value).removeprefix("s.") for node in graph.inputs])
    old: list[Node | None] = [graph.inputs[0], *graph.inputs[2:]] if stored else [None] * len(graph.outputs)
    outputs = [f"new_{name}" for name in (inputs[0], *inputs[2:])] if stored else [f"found{k}" for k in range(len(old))]
    numbers = graph.scalars()
    factors = graph.factors()
    names = dict(zip(graph.inputs, inputs, strict=True))
    names.update({node: f"c{i}" for i, node in enumerate(numbers)})
    names.update({node: str(node.value) for node in factors})
    pools = {"array": _Pool("x"), "mask": _Pool("m")}
    order = graph.arrays()
    last_use = {arg: i for i, node in enumerate(order) for arg in node.args}
    targets = _targets(graph, outputs, old, order, last_use)
    lines = []
    for node, target in zip(graph.outputs, outputs, strict=True):
        if (
            stored and node in graph.inputs and target != f"new_{names[node]}"
        ):  # handed on under another name: keep it safe first
            lines.append(f"copyto({pools['array'].take()}, {names[node]})")
            names[node] = pools["array"].names[-1]
    for i, node in enumerate(order):
        args = [names[arg] for arg in node.args]
        dying = [arg for arg in dict.fromkeys(node.args) if arg.args and arg.kind != "scalar" and last_use[arg] == i]
        dying = [arg for arg in dying if arg not in graph.outputs]
        if node.op == "where":  # it writes its last choice before it reads the first: that one must stay apart
            names[node] = targets.get(node) or pools["array"].take()
        for arg in dying:
            pools[arg.kind].give(names[arg])
        if node.op != "where":
            names[node] = targets.get(node) or pools[node.kind].take()
        lines += _calls(node.op, args, names[node])
    for node, target in zip(graph.outputs, outputs, strict=True):
        if names[node] != target:
            lines.append(f"copyto({target}, {names[node]})")
    working = (*pools["array"].names, *pools["mask"].names)
    last = [names[node] for node in (*numbers, *factors)]
    head = f"def kernel({', '.join((*inputs, *outputs, *working, *last))}):"
    what = graph.name if stored else f"What {graph.name} needs of whole arrays"
    doc = f'"""{what}, as calls of NumPy\'s ufuncs."""'
    notes = [f"# {names[node]} = {bare(expression(node))}" for node in numbers]
    text = "\n    ".join([head, doc, *notes, *lines]) + "\n"
    return NumPySource(text, len(pools["array"].names), len(pools["mask"].names), len(last))


def _names(wanted: list[str]) -> list[str]:
    """Return names for the inputs: the rule's own, but for a slot that is called as something else here."""
    taken = {"param", "grad", "clip_scale", "clip_factor", *CALLED, *keyword.kwlist}
    own = re.compile(r"new_|s_|([cmx]|found)\d+$")
    return [*wanted[:2], *(f"s_{name}" if name in taken or own.match(name) else name for name in wanted[2:])]


def _targets(
    graph: Graph, outputs: list[str], old: list[Node | None], order: list[Node], last_use: dict[Node, int]
) -> dict[Node, str]:
    """Return the values that can be computed in the place of an output: its input is not read after that."""
    targets = {}
    for node, name, before in zip(graph.outputs, outputs, old, strict=True):
        if node.args and node not in targets:
            i = order.index(node)
            last = -1 if before is None else last_use.get(before, -1)
            if last < i or (last == i and not (node.op == "where" and node.args[1] is before)):
                targets[node] = name
    return targets


def _calls(op: str, args: list[str], out: str) -> list[str]:
    if op == "where":
        mask, first, last = args
        return [f"copyto({out}, {last})", f"putmask({out}, {mask}, {first})"]  # which allocates nothing
    target = f"out={out}" if op in ("maximum", "minimum") else out  # NumPy wants it named for these two; that is slower
    return [f"{UFUNCS.get(op, op)}({', '.join((*args, target))})"]
