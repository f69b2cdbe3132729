"""The nodes of a traced rule. Equal nodes are one node, so that common work is seen to be common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from .questions import Question

Kind = Literal["array", "mask", "one", "flag", "scalar"]

Value = str | float | Question | None
"""What tells nodes without arguments, or of one operation, apart."""

TRUTHS = {"mask", "flag"}
"""The kinds of truth values."""

COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
REDUCTIONS = ("sum", "mean", "max", "min", "vector_norm")
"""Functions of a whole array, which make one number of it."""

OF_MODEL = {"model_sum": "sum", "model_norm": "vector_norm", "model_max": "max", "model_root": "vector_norm"}
"""The same of one array of each parameter of a model together: by operation, what is made of them."""

LOGICAL = ("logical_and", "logical_or", "logical_xor", "logical_not", "isnan", "isinf", "isfinite")


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One value of a rule.

    Parameters
    ----------
    op : str
        The standard's name of an elementwise function; or ``"input"``, an array that the rule is given; ``"number"``,
        an attribute of `h`; ``"constant"``; ``"factor"``, what a clipped gradient is multiplied by, of each parameter:
        two numbers, ``clip_scale`` and then ``clip_factor``; ``"one"``, in the part of a graph that is about arrays,
        a number of the compute dtype that the other part makes of each parameter. One of `REDUCTIONS` or `OF_MODEL`.
    kind : {"array", "mask", "one", "flag", "scalar"}
        An array of the compute dtype, one of booleans; the same of shape (), whatever the shape of the parameter is; or
        a number that the host computes in float64.
    args : tuple of Node
        What it is computed from.
    value : str, float or Question, optional
        The name of an input (``param``, ``grad``, ``s.mean``), number or factor; the value of a constant; the text of
        an ``"one"``; of what is one of `OF_MODEL`, the question.
    """

    op: str
    kind: Kind
    args: tuple[Node, ...] = ()
    value: Value = None

    def __repr__(self) -> str:
        """Write the expression; of what is shared often and deeply, only the top."""
        return self._text(4)

    def _text(self, depth: int) -> str:
        if not self.args:
            return str(self.value)
        args = (arg._text(depth - 1) for arg in self.args) if depth else ("...",)
        return f"{self.op}({', '.join(args)})"


@dataclass(eq=False)
class Graph:
    """What a rule computes.

    Parameters
    ----------
    name : str
        The rule's name.
    inputs : tuple of Node
        ``param``, ``grad`` and the slots, whether the rule reads them or not.
    outputs : tuple of Node
        The new ``param`` and slots.
    names : dict
        What the rule itself calls its values: the names of its local variables.
    """

    name: str
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...] = ()
    names: dict[Node, str] = field(default_factory=dict)

    def ordered(self) -> Iterator[Node]:
        """Yield every node that the outputs need, each once, arguments first."""
        return _ordered(self.outputs)

    def arrays(self) -> list[Node]:
        """Return every array and mask that must be computed, arguments before what is made of them."""
        return [node for node in _ordered(self.outputs) if node.kind != "scalar" and node.args]

    def scalars(self) -> list[Node]:
        """Return every number that meets an array, in the order of first use; those of each parameter come last."""
        found: dict[Node, None] = {}
        for node in _ordered(self.outputs):
            if node.kind != "scalar":
                found.update((arg, None) for arg in node.args if arg.kind == "scalar" and arg.op != "factor")
        return sorted(found, key=lambda node: node.op == "one")

    def numbers(self) -> list[Node]:
        """Return those of `scalars` that are of the step."""
        return [node for node in self.scalars() if node.op != "one"]

    def reductions(self) -> list[Node]:
        """Return what needs a whole array, or those of a model."""
        return [node for node in self.ordered() if node.op in REDUCTIONS or node.op in OF_MODEL]

    def factors(self) -> list[Node]:
        """Return the two numbers that clip the gradient, if it is clipped and the rule reads it."""
        return [arg for node in self.arrays() for arg in node.args if arg.op == "factor"]


def _ordered(roots: tuple[Node, ...]) -> Iterator[Node]:
    """Yield the nodes below `roots`, each once, arguments first; without recursion, however deep a rule is."""
    done: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
