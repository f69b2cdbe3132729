"""A graph as Python that Numba compiles: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

import builtins
import keyword

from .._graph.node import Graph
from .host import INFIX
from .loop import Language, emit

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
    *("piece", "tensor", "start", "size", "row", "i", "at", "take", "move", "sqrt", "exp", "log", "isinf", "isfinite"),
    *("float16", "bfloat16", "float32", "float64", "uint16"),
)

_RESERVED = {*_SCAFFOLD, *keyword.kwlist, *dir(builtins)}

_STORED = {"float16": "uint16", "bfloat16": "uint16"}
"""What Numba sees of the dtypes that it does not have."""


def print_numba(graph: Graph, dtype: str = "float32") -> str:
    """Print a graph for Numba.

    Parameters
    ----------
    graph : Graph
        What to print.
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the parameter and its gradient. The arithmetic, the slots and the numbers are of float64 for
        float64, else of float32.

    Returns
    -------
    str
        A module with a function ``kernel(table, pieces, counter, rows, numbers, factors)``, which any number of threads
        may call at once with the same `counter`:

        ========== ========================== ====================================================================
        table      int64, (roles, tensors)    addresses of param, grad, the slots, and of where the new param goes
        pieces     int64, (pieces, 3)         the tensor, the first element and the number of elements of each
        counter    int64, (1,)                how many pieces have been taken, by all threads together
        rows       int64, (tensors,)          the row of `numbers` for each tensor
        numbers    compute, (rows, numbers)   the numbers of the step
        factors    compute, (tensors,)        what each gradient is multiplied by, if the graph clips
        ========== ========================== ====================================================================
    """
    compute = "float64" if dtype == "float64" else "float32"
    stored = _STORED.get(dtype, dtype)
    low = stored != dtype
    operations = {op: text.replace("{compute}", compute) for op, text in _OPERATIONS.items()}
    body = emit(graph, Language(operations, "{0} = {1}", "{0} = {1}", _RESERVED))
    param, grad, *slots = body.inputs
    into = len(body.inputs)
    each_tensor = [
        f"move(table[0, tensor], table[{into}, tensor], start, size, {stored})",
        f"at_{param} = at(table[{into}, tensor], start, size, {stored})",
        f"at_{grad} = at(table[1, tensor], start, size, {stored})",
        *(f"at_{slot} = at(table[{k}, tensor], start, size, {compute})" for k, slot in enumerate(slots, 2)),
        "row = rows[tensor]",
        *(f"{name} = numbers[row, {k}]  # {what}" for k, (name, what) in enumerate(body.numbers)),
        *([f"{body.factor} = factors[tensor]"] if body.factor else []),
    ]
    load, store = (f"load_{dtype}(at_{{0}}[i])", f"store_{dtype}({{0}})") if low else ("at_{0}[i]", "{0}")
    each_element = [
        *(f"{name} = {load.format(name)}" for name in (param, grad)),
        *(f"{slot} = at_{slot}[i]" for slot in slots),
        *body.lines,
        f"at_{param}[i] = {store.format(body.outputs[0])}",
        *(f"at_{slot}[i] = {value}" for slot, value in zip(slots, body.outputs[1:], strict=True)),
    ]
    called = ["at", *([f"load_{dtype}"] if low else []), "move", *([f"store_{dtype}"] if low else []), "take"]
    lines = [
        f'"""{graph.name} on {dtype}, computed in {compute}."""',
        "",
        "from math import exp, isfinite, isinf, log, sqrt",
        "",
        f"from numba import {', '.join(sorted({stored, compute}))}",
        "",
        f"from {__package__}.intrinsics import {', '.join(called)}",
        "",
        "",
        "def kernel(table, pieces, counter, rows, numbers, factors):",
        "    while True:",
        "        piece = take(counter)",
        "        if piece >= len(pieces):",
        "            return",
        "        tensor, start, size = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]",
        *(f"        {line}" for line in each_tensor),
        "        for i in range(size):",
        *(f"            {line}" for line in each_element),
    ]
    return "\n".join(lines) + "\n"
