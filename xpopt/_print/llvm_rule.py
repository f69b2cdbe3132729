"""A rule's operations as LLVM's assembly, one a line, for one element of each array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._graph.node import Graph, Node
from .llvm_loops import WIDTH
from .llvm_text import called, of_type
from .loop import name_leaves, unique

_OPERATIONS = {
    "add": "fadd $T {0}, {1}",
    "subtract": "fsub $T {0}, {1}",
    "multiply": "fmul $T {0}, {1}",
    "divide": "fdiv $T {0}, {1}",
    "pow": "call $T @llvm.pow.$S($T {0}, $T {1})",
    "negative": "fneg $T {0}",
    "abs": "call $T @llvm.fabs.$S($T {0})",
    "sign": "call $T @sign($T {0})",
    "sqrt": "call $T @llvm.sqrt.$S($T {0})",
    "square": "fmul $T {0}, {0}",
    "exp": "call $T @llvm.exp.$S($T {0})",
    "log": "call $T @llvm.log.$S($T {0})",
    "maximum": "call $T @maximum($T {0}, $T {1})",
    "minimum": "call $T @minimum($T {0}, $T {1})",
    "where": "select i1 {0}, $T {1}, $T {2}",
    "less": "fcmp olt $T {0}, {1}",
    "less_equal": "fcmp ole $T {0}, {1}",
    "greater": "fcmp ogt $T {0}, {1}",
    "greater_equal": "fcmp oge $T {0}, {1}",
    "equal": "fcmp oeq $T {0}, {1}",
    "not_equal": "fcmp une $T {0}, {1}",
    "isnan": "fcmp uno $T {0}, {0}",
    "isinf": "call i1 @isinf($T {0})",
    "isfinite": "call i1 @isfinite($T {0})",
    "logical_and": "and i1 {0}, {1}",
    "logical_or": "or i1 {0}, {1}",
    "logical_xor": "xor i1 {0}, {1}",
    "logical_not": "xor i1 {0}, true",
}

_RESERVED = {
    *("begin", "beyond", "bits", "bytes", "clip_factor", "clip_scale", "count", "counter", "done", "entry", "factors"),
    *("first", "first_key", "firsts", "folded", "here", "i", "last", "left", "loop", "more", "next", "numbers", "part"),
    *("parts", "piece", "pieces", "place", "row", "rows", "second_key", "share", "size", "some", "source", "start"),
    *("sums", "table", "take", "tensor", "tensors"),
}
"""Names that printed functions have for what is theirs, beside those with a dot."""

STORED = {"float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double"}
BYTES = {"half": 2, "i16": 2, "float": 4, "double": 8}


class Element(NamedTuple):
    """An element of an array in memory.

    Parameters
    ----------
    name : str
        Its value's.
    stored, compute : str
        The types that it is stored and computed in.
    """

    name: str
    stored: str
    compute: str

    def find(self, role: int) -> list[str]:
        """Return the lines that find the array of a tensor, from the first element of a piece on."""
        return [
            f"%{self.name}.all = {address(role)}",
            f"%{self.name}.first = getelementptr {self.stored}, ptr %{self.name}.all, i64 %start",
        ]

    def find_at(self) -> str:
        """Return the line that finds it."""
        return f"%{self.name}.at = getelementptr {self.stored}, ptr %{self.name}.first, i64 %i"

    def load(self) -> list[str]:
        """Return the lines that read it."""
        name, stored = self.name, self.stored
        lines = [self.find_at()]
        if stored == self.compute:
            return [*lines, f"%{name} = load {stored}, ptr %{name}.at"]
        widened = _converted(f"%{name}.stored", stored, self.compute)
        return [*lines, f"%{name}.stored = load {stored}, ptr %{name}.at", f"%{name} = {widened}"]

    def store(self, value: str) -> list[str]:
        """Return the lines that write a value in its place."""
        if self.stored == self.compute:
            return [f"store {self.stored} {value}, ptr %{self.name}.at"]
        rounded = _converted(value, self.compute, self.stored)
        return [f"%{self.name}.rounded = {rounded}", f"store {self.stored} %{self.name}.rounded, ptr %{self.name}.at"]


def _converted(value: str, old: str, new: str) -> str:
    if old == "i16":
        return f"call float @load_bfloat16(i16 {value})"
    if new == "i16":
        return f"call i16 @store_bfloat16(float {value})"
    return f"{'fpext' if BYTES[old] < BYTES[new] else 'fptrunc'} {old} {value} to {new}"


class Rule:
    """A graph, one operation a line.

    Parameters
    ----------
    graph, dtype, slots
        As for `print_llvm`.

    Attributes
    ----------
    compute : str
        The type of the arithmetic.
    elements : list of Element
        Of the inputs.
    numbers : tuple of (str, str)
        As for `Body`.
    factors : tuple of str
        As for `Body`.
    lines : list of str
        What loads an element of each input and computes the values.
    outputs : list of str
        The new ``param`` and slots.
    arguments : list of str
        What a function of the lines is given: where each input begins, and the numbers.
    """

    def __init__(self, graph: Graph, dtype: str, slots: Sequence[str]) -> None:
        wide = "float64" if dtype == "float64" else "float32"
        self.compute = compute = STORED[wide]
        taken = set(_RESERVED)
        leaves = name_leaves(graph, taken)
        kinds = [dtype, dtype, *slots]
        kinds += [wide] * (len(leaves.inputs) - len(kinds))
        self.elements = [Element(name, STORED[kind], compute) for name, kind in zip(leaves.inputs, kinds, strict=True)]
        self.numbers, self.factors = leaves.numbers, leaves.factors
        self.lines = [line for element in self.elements for line in element.load()]
        names = {node: f"%{name}" for node, name in leaves.text.items()}
        for k, node in enumerate(graph.arrays()):
            names[node] = "%" + unique(graph.names.get(node, f"x{k}"), taken)
            self.lines.append(f"{names[node]} = {operation(node, names, compute)}")
        self.outputs = [names[node] for node in graph.outputs]
        pointers = [f"ptr %{element.name}.first" for element in self.elements]
        self.arguments = pointers + [
            f"{compute} %{name}" for name in (*(name for name, _ in self.numbers), *self.factors)
        ]

    def find_row(self, width: int) -> list[str]:
        """Return the lines that find the row of a tensor, which has `width` numbers."""
        return [
            "%row.at = getelementptr i64, ptr %rows, i64 %tensor",
            "%row = load i64, ptr %row.at",
            f"%row.first = getelementptr [{width} x {self.compute}], ptr %numbers, i64 %row",
        ]

    def read_numbers(self) -> list[str]:
        """Return the lines that read the numbers of a tensor, which its row begins with, and its factors."""
        names = [(f"%{name}", what) for name, what in self.numbers]
        lines = read_row(names, self.compute)
        if self.factors:
            first, second = self.factors
            lines += read_factors(f"%{first}", f"%{second}", self.compute)
        return lines

    def module(self, title: str, text: str) -> str:
        """Return a text with a title in front of it and, behind it, the functions that it calls."""
        wide = {"float": "float32", "double": "float64"}[self.compute]
        end = WIDTH if "!llvm.loop" in text else ""
        return f"; {title}, computed in {wide}.\n\n{text}{called(text, self.compute)}{end}"


def read_row(names: Sequence[tuple[str, str]], compute: str, first: int = 0) -> list[str]:
    """Return the lines that read numbers of a row, from one on; beside each name stands what the number is."""
    lines = []
    for k, (name, what) in enumerate(names, first):
        lines += [f"{name}.at = getelementptr {compute}, ptr %row.first, i64 {k}"]
        lines += [f"{name} = load {compute}, ptr {name}.at  ; {what}"]
    return lines


def read_factors(first: str, second: str, compute: str) -> list[str]:
    """Return the lines that read what the gradient of a tensor is multiplied by, by these names."""
    return [
        f"{first}.at = getelementptr {compute}, ptr %factors, i64 %tensor",
        f"{first} = load {compute}, ptr {first}.at",
        f"{second}.at = getelementptr {compute}, ptr {first}.at, i64 %tensors",
        f"{second} = load {compute}, ptr {second}.at",
    ]


def operation(node: Node, names: Mapping[Node, str], compute: str) -> str:
    """Return what computes a node of its arguments, by their names."""
    return of_type(_OPERATIONS[node.op].format(*(names[arg] for arg in node.args)), compute)


def address(role: int) -> str:
    """Return what finds where a role of a tensor lies."""
    return f"call ptr @address(ptr %table, i64 %tensors, i64 {role}, i64 %tensor)"
