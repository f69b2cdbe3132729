"""A graph as LLVM's assembly: a loop over pieces of many arrays, one element after the other."""

from __future__ import annotations

from collections.abc import Sequence

from .._arrays.sums import PIECE
from .._graph.node import Graph
from .accumulated import Accumulated
from .llvm_loops import over_pieces
from .llvm_passes import TO_DRAW, TO_SUMS, measuring, read_keys, updating
from .llvm_rule import BYTES, Element, Rule, address


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
    width = len(rule.numbers)
    each_tensor = [
        *find_elements(rule.elements),
        *rule.find_row(width + 4 * drawn),
        *rule.read_numbers(),
        *(read_keys(width) if drawn else []),
        f"call void @elements({', '.join([*rule.arguments, *(TO_DRAW if drawn else []), 'i64 %size'])})",
    ]
    text = updating(rule, dtype, drawn=drawn) + over_pieces("kernel", ARGUMENTS, each_tensor)
    return rule.module(f"{graph.name} on {dtype}", text)


def find_elements(elements: Sequence[Element]) -> list[str]:
    """Return the lines that find the arrays of a tensor, and move the parameter where the new one goes."""
    param, grad, *slots = elements
    return [
        f"%source.all = {address(0)}",
        f"%source = getelementptr {param.stored}, ptr %source.all, i64 %start",
        *param.find(2),
        f"%bytes = mul i64 %size, {BYTES[param.stored]}",
        f"call void @move(ptr %source, ptr %{param.name}.first, i64 %bytes)",
        *grad.find(1),
        *(line for role, element in enumerate(slots, 3) for line in element.find(role)),
    ]


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
    each_tensor = [
        *rule.elements[0].find(0),
        *rule.elements[1].find(1),
        *(line for role, element in enumerate(rule.elements[2:], 3) for line in element.find(role)),
        *rule.find_row(len(rule.numbers)),
        *rule.read_numbers(),
        "%place.before = sdiv i64 %start, " + str(PIECE),
        "%place.at = getelementptr i64, ptr %firsts, i64 %tensor",
        "%place.of_tensor = load i64, ptr %place.at",
        "%place.first = add i64 %place.of_tensor, %place.before",
        f"call void @piece({', '.join([*rule.arguments, *TO_SUMS])})",
    ]
    arguments = [*ARGUMENTS, "ptr %firsts", "ptr %sums", "i64 %sums.count"]
    text = measuring(rule, found) + over_pieces("measure", arguments, each_tensor)
    return rule.module(f"What {graph.name} on {dtype} needs of whole tensors", text)


ARGUMENTS = [
    *("ptr %table", "i64 %tensors", "ptr %pieces", "i64 %count", "ptr %counter", "ptr %rows", "ptr %numbers"),
    "ptr %factors",
]
"""Those of a kernel."""
