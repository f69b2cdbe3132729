"""A graph as Python that Numba compiles: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

import builtins
import functools
import keyword
from collections.abc import Sequence
from typing import NamedTuple

from .._graph.node import Graph
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


_LANES = 64
"""Sums that go on side by side, so that they are computed many at a time."""


def print_squares(dtype: str) -> str:
    """Print the first half of the gradients' norms for Numba.

    Parameters
    ----------
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the gradients.

    Returns
    -------
    str
        A module with a function ``squares(table, pieces, counter, sums)``: it writes the sum of the squares of each
        piece to the float64 array `sums`, added up in an order that depends on nothing but the piece's size.
    """
    _, stored, low = _types(dtype)
    value = f"load_{dtype}(at_grad[i])" if low else "at_grad[i]"
    before = [f"at_grad = at(table[1, tensor], start, size, {stored})", f"lanes = zeros({_LANES})"]
    lines = [
        f"whole = size // {_LANES} * {_LANES}",
        f"for begin in range(0, whole, {_LANES}):",
        f"    for lane in range({_LANES}):",
        f"        x = float64({value.replace('[i]', '[begin + lane]')})",
        "        lanes[lane] += x * x",
        "for i in range(whole, size):",
        f"    x = float64({value})",
        "    lanes[i - whole] += x * x",
        "total = 0.0",
        f"for lane in range({_LANES}):",
        "    total += lanes[lane]",
        "sums[piece] = total",
    ]
    calls = ["at", *([f"load_{dtype}"] if low else []), "take"]
    head = _head(f"Sums of squares of {dtype} gradients.", {stored, "float64"}, calls, "\nfrom numpy import zeros")
    return head + _over_pieces("squares(table, pieces, counter, sums)", [*before, *lines], [])


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


def _over_pieces(signature: str, each_tensor: list[str], each_element: list[str]) -> str:
    lines = [
        f"def {signature}:",
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
