"""A graph as LLVM's assembly: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from .._arrays.sums import LANES, PIECE, Way
from .._graph.node import Graph
from .accumulated import Accumulated
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

_STORED = {"float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double"}
_BYTES = {"half": 2, "i16": 2, "float": 4, "double": 8}


def print_llvm(graph: Graph, dtype: str = "float32", *, drawn: bool = False, slots: Sequence[str] = ()) -> str:
    """Print a graph for LLVM.

    Parameters
    ----------
    graph : Graph
        What to print.
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the parameter and its gradient. The arithmetic, the slots and the numbers are of float64 for
        float64, else of float32.
    drawn : bool
        Whether a parameter of 16 bits is rounded stochastically. Each row of numbers then ends in a key: the upper and
        the lower half of two integers.
    slots : sequence of str
        The dtype of each slot, if not all are of that of the arithmetic; those of 16 bits beside float32 alone.

    Returns
    -------
    str
        A module with a function ``kernel(table, tensors, pieces, count, counter, rows, numbers, factors)``, which any
        number of threads may call at once with the same `counter`:

        ========== ========================== ====================================================================
        table      int64, (roles, tensors)    addresses of param, grad, where the new param goes, and the slots
        tensors    int64                      how many there are
        pieces     int64, (count, 3)          the tensor, the first element and how many elements it has
        count      int64                      how many pieces there are
        counter    int64, (1,)                how many pieces have been taken, by all threads together
        rows       int64, (tensors,)          the row of `numbers` for each tensor
        numbers    compute, (rows, numbers)   the numbers of the step
        factors    compute, (2, tensors)      what each gradient is multiplied by, if the graph clips
        ========== ========================== ====================================================================
    """
    rule = _Rule(graph, dtype, slots)
    param, grad, *kept = rule.elements
    new, *outputs = rule.outputs
    lines = [*rule.lines]
    if drawn:
        lines += [
            "%place = add i64 %start, %i",
            "%bits = call i32 @random_bits(i64 %place, i32 %first_key, i32 %second_key)",
            f"%{param.name}.drawn = call {param.stored} @draw_{dtype}(float {new}, i32 %bits)",
            f"store {param.stored} %{param.name}.drawn, ptr %{param.name}.at",
        ]
    else:
        lines += param.store(new)
    for element, output in zip(kept, outputs, strict=True):
        if output != f"%{element.name}":  # what stays is there already
            lines += element.store(output)
    keys = _keys(rule, "first_key", "second_key") if drawn else []
    given = rule.arguments + (["i32 %first_key", "i32 %second_key", "i64 %start"] if drawn else [])
    each_tensor = [
        f"%source.all = {_address(0)}",
        f"%source = getelementptr {param.stored}, ptr %source.all, i64 %start",
        *param.find(2),
        f"%bytes = mul i64 %size, {_BYTES[param.stored]}",
        f"call void @move(ptr %source, ptr %{param.name}.first, i64 %bytes)",
        *grad.find(1),
        *(line for role, element in enumerate(kept, 3) for line in element.find(role)),
        *rule.read_numbers(width=len(rule.numbers) + 4 * drawn),
        *keys,
        f"call void @elements({', '.join([*given, 'i64 %size'])})",
    ]
    pointers, numbers = given[: len(rule.elements)], given[len(rule.elements) :]
    elements = _elements([*_apart(pointers), *numbers, "i64 %size"], lines)
    return rule.module(f"{graph.name} on {dtype}", elements + _over_pieces("kernel", _ARGUMENTS, each_tensor))


def print_measure(
    graph: Graph, found: Sequence[Accumulated], dtype: str = "float32", *, slots: Sequence[str] = ()
) -> str:
    """Print for LLVM what is found of the outputs of a graph over whole tensors; nothing of them is written.

    Parameters
    ----------
    graph : Graph
        What to compute of each element.
    found : sequence of Accumulated
        What is found of it.
    dtype, slots : as for `print_llvm`
        The same.

    Returns
    -------
    str
        A module with a function ``measure(table, tensors, pieces, count, counter, rows, numbers, factors, firsts, sums,
        length)``, of which the first eight are as for `print_llvm`. It writes to ``sums[k]``, of `length` numbers, what
        ``found[k]`` is of each piece of `sums.PIECE` elements, in the order that is described there. ``firsts[tensor]``
        is the place of the first one of a tensor, of which every piece in `pieces` begins at a whole one.
    """
    rule = _Rule(graph, dtype, slots)
    count = len(rule.elements)
    pointers, numbers = rule.arguments[:count], rule.arguments[count:]
    lanes = [f"lanes{k}." for k in range(len(found))]
    lines = [*rule.lines]
    for name, of in zip(lanes, found, strict=True):
        lines += _join(rule.outputs[of.output], of.way, name, rule.compute)
    rows = [f"ptr %{name}all" for name in lanes]
    elements = _elements([*_apart([*pointers, *rows]), *numbers, "i64 %size"], lines)
    at_row = [f"ptr %{element.name}.row" for element in rule.elements]
    each_row = [
        "%place.row = add i64 %part, %begin",
        "%left.row = sub i64 %here, %begin",
        f"%count = call i64 @llvm.smin.i64(i64 %left.row, i64 {LANES})",
        *(f"%{x.name}.row = getelementptr {x.stored}, ptr %{x.name}.first, i64 %place.row" for x in rule.elements),
        f"call void @elements({', '.join([*at_row, *rows, *numbers, 'i64 %count'])})",
    ]
    each_part = [
        "%left = sub i64 %size, %part",
        f"%here = call i64 @llvm.smin.i64(i64 %left, i64 {PIECE})",
        *(
            f"call void @fill(ptr %{name}all, double {_literal(of.way.start)})"
            for name, of in zip(lanes, found, strict=True)
        ),
    ]
    folded = [
        f"%place.part = sdiv i64 %part, {PIECE}",
        "%place = add i64 %place.first, %place.part",
    ]
    for k, (name, of) in enumerate(zip(lanes, found, strict=True)):
        folded += [
            f"%{name}sum = call double @fold_{of.way.join}(ptr %{name}all)",
            f"%{name}line = mul i64 %sums.count, {k}",
            f"%{name}place = add i64 %{name}line, %place",
            f"%{name}at = getelementptr double, ptr %sums, i64 %{name}place",
            f"store double %{name}sum, ptr %{name}at",
        ]
    piece = _parts([*pointers, *numbers, *_TO_SUMS], lanes, each_part, each_row, folded)
    each_tensor = [
        *rule.elements[0].find(0),
        *rule.elements[1].find(1),
        *(line for role, element in enumerate(rule.elements[2:], 3) for line in element.find(role)),
        *rule.read_numbers(width=len(rule.numbers)),
        "%place.before = sdiv i64 %start, " + str(PIECE),
        "%place.at = getelementptr i64, ptr %firsts, i64 %tensor",
        "%place.of_tensor = load i64, ptr %place.at",
        "%place.first = add i64 %place.of_tensor, %place.before",
        f"call void @piece({', '.join([*pointers, *numbers, *_TO_SUMS])})",
    ]
    arguments = [*_ARGUMENTS, "ptr %firsts", "ptr %sums", "i64 %sums.count"]
    text = elements + piece + _over_pieces("measure", arguments, each_tensor)
    return rule.module(f"What {graph.name} on {dtype} needs of whole tensors", text)


_ARGUMENTS = [
    *("ptr %table", "i64 %tensors", "ptr %pieces", "i64 %count", "ptr %counter", "ptr %rows", "ptr %numbers"),
    "ptr %factors",
]

_TO_SUMS = ["i64 %place.first", "i64 %size", "ptr %sums", "i64 %sums.count"]


class _Element(NamedTuple):
    """An element of an array in memory."""

    name: str
    stored: str
    compute: str

    def find(self, role: int) -> list[str]:
        """Return the lines that find the array of a tensor, from the first element of a piece on."""
        return [
            f"%{self.name}.all = {_address(role)}",
            f"%{self.name}.first = getelementptr {self.stored}, ptr %{self.name}.all, i64 %start",
        ]

    def load(self) -> list[str]:
        name, stored = self.name, self.stored
        lines = [f"%{name}.at = getelementptr {stored}, ptr %{name}.first, i64 %i"]
        if stored == self.compute:
            return [*lines, f"%{name} = load {stored}, ptr %{name}.at"]
        widened = _converted(f"%{name}.stored", stored, self.compute)
        return [*lines, f"%{name}.stored = load {stored}, ptr %{name}.at", f"%{name} = {widened}"]

    def store(self, value: str) -> list[str]:
        if self.stored == self.compute:
            return [f"store {self.stored} {value}, ptr %{self.name}.at"]
        rounded = _converted(value, self.compute, self.stored)
        return [f"%{self.name}.rounded = {rounded}", f"store {self.stored} %{self.name}.rounded, ptr %{self.name}.at"]


def _converted(value: str, old: str, new: str) -> str:
    if old == "i16":
        return f"call float @load_bfloat16(i16 {value})"
    if new == "i16":
        return f"call i16 @store_bfloat16(float {value})"
    return f"{'fpext' if _BYTES[old] < _BYTES[new] else 'fptrunc'} {old} {value} to {new}"


class _Rule:
    """A graph, one operation a line.

    Parameters
    ----------
    graph, dtype, slots
        As for `print_llvm`.
    """

    def __init__(self, graph: Graph, dtype: str, slots: Sequence[str]) -> None:
        wide = "float64" if dtype == "float64" else "float32"
        self.compute = compute = _STORED[wide]
        taken = set(_RESERVED)
        leaves = name_leaves(graph, taken)
        kinds = [dtype, dtype, *(slots or [wide] * (len(leaves.inputs) - 2))]
        self.elements = [
            _Element(name, _STORED[kind], compute) for name, kind in zip(leaves.inputs, kinds, strict=True)
        ]
        self.numbers, self._factors = leaves.numbers, leaves.factors
        self.lines = [line for element in self.elements for line in element.load()]
        names = {node: f"%{name}" for node, name in leaves.text.items()}
        for k, node in enumerate(graph.arrays()):
            names[node] = "%" + unique(graph.names.get(node, f"x{k}"), taken)
            text = _OPERATIONS[node.op].format(*(names[arg] for arg in node.args))
            self.lines.append(f"{names[node]} = {of_type(text, compute)}")
        self.outputs = [names[node] for node in graph.outputs]
        pointers = [f"ptr %{element.name}.first" for element in self.elements]
        self.arguments = pointers + [
            f"{compute} %{name}" for name in (*(name for name, _ in self.numbers), *self._factors)
        ]

    def read_numbers(self, width: int) -> list[str]:
        """Return the lines that read the numbers of a tensor, which has a row of `width` of them."""
        compute = self.compute
        lines = ["%row.at = getelementptr i64, ptr %rows, i64 %tensor", "%row = load i64, ptr %row.at"]
        lines += [f"%row.first = getelementptr [{width} x {compute}], ptr %numbers, i64 %row"]
        for k, (name, what) in enumerate(self.numbers):
            lines += [f"%{name}.at = getelementptr {compute}, ptr %row.first, i64 {k}"]
            lines += [f"%{name} = load {compute}, ptr %{name}.at  ; {what}"]
        if self._factors:
            first, second = self._factors
            lines += [
                f"%{first}.at = getelementptr {compute}, ptr %factors, i64 %tensor",
                f"%{first} = load {compute}, ptr %{first}.at",
                f"%{second}.at = getelementptr {compute}, ptr %{first}.at, i64 %tensors",
                f"%{second} = load {compute}, ptr %{second}.at",
            ]
        return lines

    def module(self, title: str, text: str) -> str:
        """Return a text with a title in front of it and, behind it, the functions that it calls."""
        wide = {"float": "float32", "double": "float64"}[self.compute]
        return f"; {title}, computed in {wide}.\n\n{text}{called(text, self.compute)}"


def _address(role: int) -> str:
    return f"call ptr @address(ptr %table, i64 %tensors, i64 {role}, i64 %tensor)"


def _keys(rule: _Rule, *names: str) -> list[str]:
    """Return the lines that read the two integers of a key, behind the numbers of a row."""
    lines = []
    for k, name in enumerate(names):
        for half in (0, 1):
            place = len(rule.numbers) + 2 * k + half
            lines += [f"%{name}.at{half} = getelementptr float, ptr %row.first, i64 {place}"]
            lines += [f"%{name}.half{half} = load float, ptr %{name}.at{half}"]
        lines += [f"%{name} = call i32 @key(float %{name}.half0, float %{name}.half1)"]
    return lines


def _join(value: str, way: Way, lane: str, compute: str) -> list[str]:
    """Return the lines that add what an element is to its lane."""
    lines = [f"%{lane}at = getelementptr double, ptr %{lane}all, i64 %i", f"%{lane}old = load double, ptr %{lane}at"]
    if compute == "float":
        lines += [f"%{lane}wide = fpext float {value} to double"]
        value = f"%{lane}wide"
    if way.factor != 1.0:
        lines += [f"%{lane}scaled = fmul double {value}, {_literal(way.factor)}"]
        value = f"%{lane}scaled"
    if way.square:
        lines += [f"%{lane}square = fmul double {value}, {value}"]
        value = f"%{lane}square"
    lines += [f"%{lane}new = call double @join_{way.join}(double {value}, double %{lane}old)"]
    return [*lines, f"store double %{lane}new, ptr %{lane}at"]


def _literal(value: float) -> str:
    """Return a number of float64, bit for bit."""
    return f"0x{struct.pack('>d', value).hex().upper()}"


def _apart(pointers: Sequence[str]) -> list[str]:
    """Declare that what is written by one pointer is read by no other."""
    return [pointer.replace("ptr ", "ptr noalias ") for pointer in pointers]


def _lines(lines: Sequence[str]) -> str:
    return "".join(f"  {line}\n" for line in lines)


def _elements(arguments: Sequence[str], lines: Sequence[str]) -> str:
    return f"""\
define internal void @elements({", ".join(arguments)}) {{
entry:
  br label %loop

loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{_lines(lines)}  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %size
  br i1 %more, label %loop, label %done

done:
  ret void
}}

"""


def _parts(
    arguments: Sequence[str], lanes: Sequence[str], each_part: list[str], each_row: list[str], folded: list[str]
) -> str:
    return f"""\
define internal void @piece({", ".join(arguments)}) {{
entry:
{_lines([f"%{name}all = alloca [{LANES} x double]" for name in lanes])}  br label %parts

parts:
  %part = phi i64 [0, %entry], [%next.part, %folded]
{_lines(each_part)}  br label %rows

rows:
  %begin = phi i64 [0, %parts], [%next, %rows]
{_lines(each_row)}  %next = add i64 %begin, {LANES}
  %more = icmp slt i64 %next, %here
  br i1 %more, label %rows, label %folded

folded:
{_lines(folded)}  %next.part = add i64 %part, {PIECE}
  %more.parts = icmp slt i64 %next.part, %size
  br i1 %more.parts, label %parts, label %done

done:
  ret void
}}

"""


def _over_pieces(name: str, arguments: Sequence[str], each_tensor: Sequence[str]) -> str:
    return f"""\
define void @{name}({", ".join(arguments)}) {{
entry:
  %share.even = sdiv i64 %count, 64
  %share.least = call i64 @llvm.smax.i64(i64 %share.even, i64 1)
  %share = call i64 @llvm.smin.i64(i64 %share.least, i64 16)
  br label %take

take:
  %first = atomicrmw add ptr %counter, i64 %share monotonic
  %beyond = add i64 %first, %share
  %last = call i64 @llvm.smin.i64(i64 %beyond, i64 %count)
  %some = icmp slt i64 %first, %last
  br i1 %some, label %loop, label %done

loop:
  %piece = phi i64 [%first, %take], [%next, %loop]
  %tensor.at = getelementptr [3 x i64], ptr %pieces, i64 %piece
  %tensor = load i64, ptr %tensor.at
  %start.at = getelementptr i64, ptr %tensor.at, i64 1
  %start = load i64, ptr %start.at
  %size.at = getelementptr i64, ptr %tensor.at, i64 2
  %size = load i64, ptr %size.at
{_lines(each_tensor)}  %next = add i64 %piece, 1
  %more = icmp slt i64 %next, %last
  br i1 %more, label %loop, label %take

done:
  ret void
}}

"""
