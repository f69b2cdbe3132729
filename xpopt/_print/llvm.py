"""A graph as LLVM's assembly: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .._arrays.sums import LANES, PIECE, Way
from .._graph.node import Graph
from .accumulated import Accumulated
from .llvm_loops import apart, over_elements, over_parts, over_pieces
from .llvm_rule import BYTES, Rule, address


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
    rule = Rule(graph, dtype, slots)
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
        f"%source.all = {address(0)}",
        f"%source = getelementptr {param.stored}, ptr %source.all, i64 %start",
        *param.find(2),
        f"%bytes = mul i64 %size, {BYTES[param.stored]}",
        f"call void @move(ptr %source, ptr %{param.name}.first, i64 %bytes)",
        *grad.find(1),
        *(line for role, element in enumerate(kept, 3) for line in element.find(role)),
        *rule.read_numbers(width=len(rule.numbers) + 4 * drawn),
        *keys,
        f"call void @elements({', '.join([*given, 'i64 %size'])})",
    ]
    pointers, numbers = given[: len(rule.elements)], given[len(rule.elements) :]
    elements = over_elements([*apart(pointers), *numbers, "i64 %size"], lines)
    return rule.module(f"{graph.name} on {dtype}", elements + over_pieces("kernel", _ARGUMENTS, each_tensor))


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
    rule = Rule(graph, dtype, slots)
    count = len(rule.elements)
    pointers, numbers = rule.arguments[:count], rule.arguments[count:]
    lanes = [f"lanes{k}." for k in range(len(found))]
    lines = [*rule.lines]
    for name, of in zip(lanes, found, strict=True):
        lines += _join(rule.outputs[of.output], of.way, name, rule.compute)
    rows = [f"ptr %{name}all" for name in lanes]
    width = 8 if rule.compute == "float" else 0  # elements of a vector: LLVM would go by the size of the sums alone
    elements = over_elements([*apart([*pointers, *rows]), *numbers, "i64 %size"], lines, width)
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
    piece = over_parts([*pointers, *numbers, *_TO_SUMS], lanes, each_part, each_row, folded)
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
    text = elements + piece + over_pieces("measure", arguments, each_tensor)
    return rule.module(f"What {graph.name} on {dtype} needs of whole tensors", text)


_ARGUMENTS = [
    *("ptr %table", "i64 %tensors", "ptr %pieces", "i64 %count", "ptr %counter", "ptr %rows", "ptr %numbers"),
    "ptr %factors",
]

_TO_SUMS = ["i64 %place.first", "i64 %size", "ptr %sums", "i64 %sums.count"]


def _keys(rule: Rule, *names: str) -> list[str]:
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
