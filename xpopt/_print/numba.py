"""A graph as Python that Numba compiles: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

import builtins
import functools
import keyword
from collections.abc import Sequence
from typing import NamedTuple

from .._arrays.sums import LANES, PIECE, Way, ways
from .._graph.node import Graph
from .._graph.passes import Pass
from .host import INFIX
from .loop import Body, Language, emit

_OPERATIONS = {
    **{op: f"({{0}} {sign} {{1}})" for op, sign in INFIX.items()},
    "negative": "(-{0})",
    "abs": "abs({0})",
    "sign": "({0} if {0} != {0} else {compute}({0} > 0) - {compute}({0} < 0))",
    "sqrt": "sqrt({0})",
    "square": "({0} * {0})",
    "exp": "exp({0})",
    "log": "log({0})",
    "maximum": "({0} if {0} > {1} or {0} != {0} else {1})",  # of two zeros the second, as NumPy's on x86
    "minimum": "({0} if {0} < {1} or {0} != {0} else {1})",
    "where": "({1} if {0} else {2})",
    "isnan": "({0} != {0})",
    "isinf": "isinf({0})",
    "isfinite": "isfinite({0})",
    "logical_and": "({0} & {1})",
    "logical_or": "({0} | {1})",
    "logical_xor": "({0} ^ {1})",
    "logical_not": "(not {0})",
}

_SCAFFOLD = (
    *("kernel", "table", "pieces", "counter", "rows", "numbers", "factors"),
    *(
        "share",
        "first",
        "piece",
        "tensor",
        "start",
        "size",
        "row",
        "i",
        "at",
        "take",
        "move",
        "sqrt",
        "exp",
        "log",
        "isinf",
        "isfinite",
        "key",
        "random_bits",
        "first_key",
        "second_key",
    ),
    *("float16", "bfloat16", "float32", "float64", "uint16"),
)

_RESERVED = {*_SCAFFOLD, *keyword.kwlist, *dir(builtins)}

_STORED = {"float16": "uint16", "bfloat16": "uint16"}
"""What Numba sees of the dtypes that it does not have."""


def print_numba(graph: Graph, dtype: str = "float32", *, drawn: bool = False, slots: Sequence[str] = ()) -> str:
    """Print a graph for Numba.

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
        A module with a function ``kernel(table, pieces, counter, rows, numbers, factors)``, which any number of threads
        may call at once with the same `counter`:

        ========== ========================== ====================================================================
        table      int64, (roles, tensors)    addresses of param, grad, where the new param goes, and the slots
        pieces     int64, (pieces, 3)         the tensor, the first element and the number of elements of each
        counter    int64, (1,)                how many pieces have been taken, by all threads together
        rows       int64, (tensors,)          the row of `numbers` for each tensor
        numbers    compute, (rows, numbers)   the numbers of the step
        factors    compute, (2, tensors)      what each gradient is multiplied by, if the graph clips
        ========== ========================== ====================================================================
    """
    compute, stored, low = _types(dtype)
    operations = {op: text.replace("{compute}", compute) for op, text in _OPERATIONS.items()}
    body = emit(graph, Language(operations, "{0} = {1}", "{0} = {1}", _RESERVED))
    param, grad, *names = body.inputs
    kept = [_Kept.of(kind, compute) for kind in slots or [compute] * len(names)]
    each_tensor = [
        f"move(table[0, tensor], table[2, tensor], start, size, {stored})",
        f"at_{param} = at(table[2, tensor], start, size, {stored})",
        f"at_{grad} = at(table[1, tensor], start, size, {stored})",
        *(
            f"at_{name} = at(table[{k}, tensor], start, size, {of.stored})"
            for k, (name, of) in enumerate(zip(names, kept, strict=True), 3)
        ),
        "row = rows[tensor]",
        *(f"{name} = numbers[row, {k}]  # {what}" for k, (name, what) in enumerate(body.numbers)),
        *(f"{name} = factors[{k}, tensor]" for k, name in enumerate(body.factors)),
        *([f"{name} = key(numbers[row, {k}], numbers[row, {k + 1}])" for name, k in _keys(body)] if drawn else []),
    ]
    bits = "random_bits(start + i, first_key, second_key)"
    load, store = (f"load_{dtype}(at_{{0}}[i])", f"store_{dtype}({{0}})") if low else ("at_{0}[i]", "{0}")
    each_element = [
        *(f"{name} = {load.format(name)}" for name in (param, grad)),
        *(f"{name} = {of.load.format(f'at_{name}[i]')}" for name, of in zip(names, kept, strict=True)),
        *body.lines,
        f"at_{param}[i] = {f'draw_{dtype}({body.outputs[0]}, {bits})' if drawn else store.format(body.outputs[0])}",
        *(
            f"at_{name}[i] = {of.store.format(value)}"
            for name, of, value in zip(names, kept, body.outputs[1:], strict=True)
            if value != name  # what stays is there already
        ),
    ]
    calls = ["at", *([f"load_{dtype}"] if low else []), "move", "take"]
    calls += [f"draw_{dtype}", "key", "random_bits"] if drawn else [f"store_{dtype}"] if low else []
    calls += [call for of in kept for call in of.calls]
    types = {stored, compute, *(of.stored for of in kept)}
    head = _head(f"{graph.name} on {dtype}, computed in {compute}.", types, [*dict.fromkeys(calls)])
    return head + _over_pieces("kernel(table, pieces, counter, rows, numbers, factors)", each_tensor, each_element)


class _Kept(NamedTuple):
    """How a slot is read and written."""

    stored: str
    load: str = "{0}"
    store: str = "{0}"
    calls: tuple[str, ...] = ()

    @classmethod
    def of(cls, dtype: str, compute: str) -> _Kept:
        if dtype == compute:
            return cls(compute)
        if dtype in _STORED:
            calls = f"load_{dtype}", f"store_{dtype}"
            return cls(_STORED[dtype], f"{calls[0]}({{0}})", f"{calls[1]}({{0}})", calls)
        return cls(dtype, f"{compute}({{0}})", f"{dtype}({{0}})")


def _keys(body: Body) -> list[tuple[str, int]]:
    """Return what the integers of a key are called, and where in a row of numbers each begins."""
    count = len(body.numbers)
    return [("first_key", count), ("second_key", count + 2)]


class Accumulated(NamedTuple):
    """What is found of an output, over all elements.

    Parameters
    ----------
    output : int
        Which output.
    way : Way
        How elements come together.
    """

    output: int
    way: Way


def accumulated(one: Pass, dtype: str) -> list[Accumulated]:
    """Return what is found of the outputs of a pass over parameters of a dtype, reduction by reduction."""
    return [Accumulated(of.output, way) for of in one.reductions for way in ways(of.op, wide=dtype == "float64")]


def print_measure(
    graph: Graph, found: Sequence[Accumulated], dtype: str = "float32", *, slots: Sequence[str] = ()
) -> str:
    """Print for Numba what is found of the outputs of a graph over whole tensors; nothing of them is written.

    Parameters
    ----------
    graph : Graph
        What to compute of each element.
    found : sequence of Accumulated
        What is found of it.
    dtype, slots : as for `print_numba`
        The same.

    Returns
    -------
    str
        A module with a function ``measure(table, pieces, counter, rows, numbers, factors, firsts, sums)``, of which the
        first six are as for `print_numba`. It writes to ``sums[k]`` what ``found[k]`` is of each piece of
        `sums.PIECE` elements, in the order that is described there. ``firsts[tensor]`` is the place of the first one of
        a tensor, of which every piece in `pieces` begins at a whole one.
    """
    compute, stored, low = _types(dtype)
    operations = {op: text.replace("{compute}", compute) for op, text in _OPERATIONS.items()}
    lanes = [f"lanes{k}" for k in range(len(found))]
    body = emit(graph, Language(operations, "{0} = {1}", "{0} = {1}", {*_RESERVED, *_MEASURING, *lanes}))
    param, grad, *names = body.inputs
    kept = [_Kept.of(kind, compute) for kind in slots or [compute] * len(names)]
    load = f"load_{dtype}(at_{{0}}[i])" if low else "at_{0}[i]"
    places = [(0, param, stored), (1, grad, stored)]
    places += [(k, name, of.stored) for k, (name, of) in enumerate(zip(names, kept, strict=True), 3)]
    each_element = [
        *(f"{name} = {load.format(name)}" for name in (param, grad)),
        *(f"{name} = {of.load.format(f'at_{name}[i]')}" for name, of in zip(names, kept, strict=True)),
        *body.lines,
        *(
            line
            for name, of in zip(lanes, found, strict=True)
            for line in _joining(body.outputs[of.output], of.way, name)
        ),
    ]
    each_tensor = [
        "row = rows[tensor]",
        *(f"{name} = numbers[row, {k}]  # {what}" for k, (name, what) in enumerate(body.numbers)),
        *(f"{name} = factors[{k}, tensor]" for k, name in enumerate(body.factors)),
        f"for part in range(0, size, {PIECE}):",
        f"    end = min(part + {PIECE}, size)",
        f"    for i in range({LANES}):",
        *(f"        {name}[i] = {of.way.start!r}" for name, of in zip(lanes, found, strict=True)),
        f"    for begin in range(part, end, {LANES}):",  # a pointer for each row, without which nothing is vectorized
        f"        count = min({LANES}, end - begin)",
        *(f"        at_{name} = at(table[{k}, tensor], start + begin, count, {of})" for k, name, of in places),
        "        for i in range(count):",
        *(f"            {line}" for line in each_element),
        f"    place = firsts[tensor] + (start + part) // {PIECE}",
        *(f"    sums[{k}, place] = fold_{of.way.join}({lanes[k]})" for k, of in enumerate(found)),
    ]
    calls = ["at", "take", *([f"load_{dtype}"] if low else []), *(f"fold_{of.way.join}" for of in found)]
    calls += [call for of in kept for call in of.calls if call.startswith("load")]
    types = {stored, compute, "float64", *(of.stored for of in kept)}
    doc = f"What {graph.name} on {dtype} needs of whole tensors, computed in {compute}."
    head = _head(doc, types, [*dict.fromkeys(calls)], "\nfrom numpy import empty, inf")
    first = [f"{name} = empty({LANES})" for name in lanes]
    return head + _over_pieces(f"measure({', '.join(_MEASURE)})", each_tensor, [], first)


_MEASURE = ("table", "pieces", "counter", "rows", "numbers", "factors", "firsts", "sums")

_MEASURING = ("begin", "count", "empty", "end", "firsts", "inf", "measure", "part", "place", "sums", "value")


def _joining(value: str, way: Way, lanes: str) -> list[str]:
    """Return the lines that add what an element is to its lane."""
    lines = [f"value = float64({value})" + (f" * {way.factor!r}" if way.factor != 1.0 else "")]
    if way.join == "add":
        return [*lines, f"{lanes}[i] += {'value * value' if way.square else 'value'}"]
    sign = ">" if way.join == "maximum" else "<"
    return [*lines, f"{lanes}[i] = value if value {sign} {lanes}[i] or value != value else {lanes}[i]"]


@functools.cache
def intrinsics_source() -> str:
    """Return the source of what printed kernels call: part of what they are."""
    from importlib import resources  # here, for it takes longer to import than this package

    return (resources.files(__package__) / "intrinsics.py").read_text("utf-8")


def _types(dtype: str) -> tuple[str, str, bool]:
    """Return what a parameter's dtype is computed in, what Numba takes it for, and whether that is something else."""
    stored = _STORED.get(dtype, dtype)
    return "float64" if dtype == "float64" else "float32", stored, stored != dtype


def _head(doc: str, types: set[str], calls: list[str], imports: str = "") -> str:
    return f'''"""{doc}"""

from math import exp, isfinite, isinf, log, sqrt

from numba import {", ".join(sorted(types))}{imports}

from {__package__}.intrinsics import {", ".join(sorted(calls))}


'''


def _over_pieces(signature: str, each_tensor: list[str], each_element: list[str], first: Sequence[str] = ()) -> str:
    lines = [
        f"def {signature}:",
        *(f"    {line}" for line in first),
        "    share = min(max(len(pieces) // 64, 1), 16)",
        "    while True:",
        "        first = take(counter, share)",
        "        if first >= len(pieces):",
        "            return",
        "        for piece in range(first, min(first + share, len(pieces))):",
        "            tensor, start, size = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]",
        *(f"            {line}" for line in each_tensor),
        *(["            for i in range(size):"] if each_element else []),
        *(f"                {line}" for line in each_element),
    ]
    return "\n".join(lines) + "\n"
