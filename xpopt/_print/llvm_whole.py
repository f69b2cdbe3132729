"""Passes in one kernel, as LLVM's assembly: a small tensor goes through all of them while it is in the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .._arrays.sums import ways
from .._graph.node import TRUTHS, Graph, Node
from .._graph.ones import Parts
from .._graph.passes import Passes, Reduction
from .accumulated import accumulated
from .host import bare, expression
from .llvm import ARGUMENTS, find_elements
from .llvm_loops import apart, over_pieces
from .llvm_passes import TO_DRAW, measuring, read_keys, updating
from .llvm_rule import Element, Rule, address, operation, read_factors, read_row
from .llvm_text import WHOLE_PIECES, literal

_STACK = 65_536
"""Bytes in which a thread keeps what passes have computed: its whole stack may have no more than twice as many."""


def largest(passes: Passes, dtype: str) -> int:
    """Return how many elements a tensor may have that goes through passes at once."""
    kept = sum(len(one.kept) for one in passes.before)
    return _STACK // ((8 if dtype == "float64" else 4) * max(kept, 1))


def graphs_of(passes: Passes) -> list[Graph]:
    """Return the parts of passes, of which the numbers follow each other in a row."""
    parts = [*(one.parts for one in passes.before), passes.last]
    return [graph for one in parts for graph in (one.arrays, one.ones) if graph is not None]


def print_whole(passes: Passes, dtype: str = "float32", *, drawn: bool = False, slots: Sequence[str] = ()) -> str:
    """Print passes for LLVM, in one kernel.

    Parameters
    ----------
    passes : Passes
        Of a graph without questions about the model.
    dtype, drawn, slots
        As for `print_llvm`.

    Returns
    -------
    str
        A module with a function ``kernel``, which is given what that of `print_llvm` is. A row has the numbers of
        `graphs_of`. Each piece is a whole tensor of 1 to `largest` elements. The slots that are one number lie behind
        the others in the table.
    """
    parts = [*(one.parts for one in passes.before), passes.last]
    rules = [Rule(of.arrays, dtype, slots) for of in parts]
    last, compute = rules[-1], rules[-1].compute
    kept = [[(k, Element(name, compute, compute)) for k, name in one.kept] for one in passes.before]
    text = "".join(
        measuring(rule, accumulated(one, dtype), mine, of=str(k))
        for k, (rule, one, mine) in enumerate(zip(rules, passes.before, kept, strict=False))
    )
    text += updating(last, dtype, drawn=drawn)
    names = {element.name for of in kept for _, element in of}
    elements = [element for element in rules[0].elements if element.name not in names]
    ones = [f"one{k}" for k, node in enumerate(_slots(parts))]
    factors = ["%factor0", "%factor1"] if any(rule.factors for rule in rules) else []
    given = [f"ptr %{element.name}.first" for element in elements] + [f"ptr %{name}.first" for name in ones]
    given += [f"{compute} {name}" for name in factors] + ["ptr %row.first", "i64 %size"]
    each_tensor = [
        *find_elements(elements),
        *(f"%{name}.first = {address(len(elements) + 1 + k)}" for k, name in enumerate(ones)),
        *last.find_row(sum(len(graph.numbers()) for graph in graphs_of(passes)) + 4 * drawn),
        *(read_factors(factors[0], factors[1], compute) if factors else []),
        f"call void @tensor({', '.join(given)})",
    ]
    text += _of_tensor(passes, parts, rules, kept, given, dtype, drawn=drawn)
    return last.module(
        f"{passes.last.arrays.name} on {dtype}, all passes at once",
        text + over_pieces("kernel", ARGUMENTS, each_tensor),
    )


def _slots(parts: Sequence[Parts]) -> list[Node]:
    """Return the slots that are one number, which the last part has new ones of."""
    ones = parts[-1].ones
    return [] if ones is None else [node for node in ones.inputs if str(node.value).startswith("s.")]


def _of_tensor(
    passes: Passes,
    parts: Sequence[Parts],
    rules: Sequence[Rule],
    kept: Sequence[Sequence[tuple[int, Element]]],
    given: Sequence[str],
    dtype: str,
    *,
    drawn: bool,
) -> str:
    """Print ``@tensor``, which takes one tensor through all passes."""
    compute = rules[-1].compute
    limit = largest(passes, dtype)
    lines = [f"%{x.name}.first = alloca [{limit} x {compute}], align 64" for of in kept for _, x in of]
    found = [accumulated(one, dtype) for one in passes.before]
    lines += [f"%sums{k} = alloca [{WHOLE_PIECES * len(of)} x double], align 64" for k, of in enumerate(found)]
    known: dict[str, str] = {}
    for k, node in enumerate(_slots(parts)):
        known[str(node.value)] = f"%one{k}"
        lines.append(f"%one{k} = load {compute}, ptr %one{k}.first")
    place = 0
    for k, (of, rule) in enumerate(zip(parts, rules, strict=True)):
        more, numbers, made = _numbers(of, rule, f"%pass{k}.", place, known)
        lines += more
        place += sum(len(graph.numbers()) for graph in (of.arrays, of.ones) if graph is not None)
        given_to = [f"ptr %{element.name}.first" for element in rule.elements]
        if k < len(passes.before):
            given_to += [f"ptr %{x.name}.first" for _, x in kept[k]]
        given_to += [f"{compute} {number}" for number in numbers]
        given_to += [f"{compute} %factor{i}" for i, _ in enumerate(rule.factors)]
        if k < len(passes.before):
            lines += _reduced(k, passes.before[k].reductions, given_to, compute)
            known |= {one.name: f"%{one.name}" for one in passes.before[k].reductions}
        else:
            if drawn:
                lines += read_keys(place)
                given_to += [*TO_DRAW[:2], "i64 0"]
            lines += [f"call void @elements({', '.join([*given_to, 'i64 %size'])})"]
            lines += [f"store {compute} {value}, ptr %one{i}.first" for i, value in enumerate(made)]
    pointers = [text for text in given if text.startswith("ptr")]
    others = [text for text in given if not text.startswith("ptr")]
    body = "".join(f"  {line}\n" for line in [*lines, "ret void"])
    return f"define internal void @tensor({', '.join([*apart(pointers), *others])}) {{\nentry:\n{body}}}\n\n"


def _numbers(
    of: Parts, rule: Rule, prefix: str, place: int, known: Mapping[str, str]
) -> tuple[list[str], list[str], list[str]]:
    """Return the lines that find the numbers of a pass, the names of these, and those of the new slots.

    Parameters
    ----------
    of : Parts
        What the pass computes.
    rule : Rule
        The part of arrays.
    prefix : str
        What names begin with.
    place : int
        Where the numbers of the pass begin in the row.
    known : mapping
        The names of what the part of numbers is made of.

    Returns
    -------
    lines, numbers, made : list of str
        As said.
    """
    compute, count = rule.compute, len(of.arrays.numbers())
    read = [(f"{prefix}{name}", what) for name, what in rule.numbers[:count]]
    lines, numbers = read_row(read, compute, place), [name for name, _ in read]
    if of.ones is None:
        return lines, numbers, []
    of_step = {node: f"{prefix}one.c{k}" for k, node in enumerate(of.ones.numbers())}
    lines += read_row([(name, bare(expression(node))) for node, name in of_step.items()], compute, place + count)
    names = of_step | {node: known[str(node.value)] for node in of.ones.inputs if str(node.value) in known}
    for node in of.ones.arrays():
        names[node] = f"{prefix}one.x{len(names)}"
        lines.append(f"{names[node]} = {operation(node, names, compute)}")
    made = []
    for k, node in enumerate(of.ones.outputs):
        made.append(names[node])
        if node.kind in TRUTHS:
            made[k] = f"{prefix}one.y{k}"
            lines.append(f"{made[k]} = uitofp i1 {names[node]} to {compute}")
    met = len(rule.numbers) - count
    return lines, [*numbers, *made[:met]], made[met:]


def _reduced(k: int, reductions: Sequence[Reduction], given: Sequence[str], compute: str) -> list[str]:
    """Return the lines that find the reductions of pass `k`, whose rule is given so much, by their names."""
    each = [ways(one.op, wide=compute == "double") for one in reductions]
    count = sum(map(len, each))
    lines, totals = [], []
    for i, way in enumerate(way for of in each for way in of):
        lines += [f"%total{k}.{i}.at = getelementptr double, ptr %sums{k}, i64 {WHOLE_PIECES * i}"]
        lines += [f"call void @begin_total(ptr %total{k}.{i}.at, double {literal(way.start)})"]
        totals += [f"%total{k}.{i} = call double @total_{way.join}(ptr %total{k}.{i}.at)"]
    lines += [
        f"call void @piece{k}({', '.join([*given, 'i64 0', 'i64 %size', f'ptr %sums{k}', f'i64 {WHOLE_PIECES}'])})"
    ]
    lines += totals
    place = 0
    for one, of in zip(reductions, each, strict=True):
        values = [f"%total{k}.{place + i}" for i in range(len(of))]
        place += len(of)
        exact = f"%{one.name}" if compute == "double" else f"%{one.name}.exact"
        if one.op == "vector_norm":
            function = "norm_of" if len(of) > 1 else "llvm.sqrt.f64"
            lines += [f"{exact} = call double @{function}({', '.join(f'double {value}' for value in values)})"]
        elif one.op == "mean":
            lines += [f"%{one.name}.size = sitofp i64 %size to double"]
            lines += [f"{exact} = fdiv double {values[0]}, %{one.name}.size"]
        else:
            lines += [f"{exact} = fadd double {values[0]}, 0.0"]
        if compute == "float":
            lines += [f"%{one.name} = fptrunc double {exact} to float"]
    assert place == count
    return lines
