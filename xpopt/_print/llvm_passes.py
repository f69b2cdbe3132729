"""What a pass does to a piece of a tensor in LLVM's assembly: one that measures, and the one that updates."""

from __future__ import annotations

from collections.abc import Sequence

from .._arrays.sums import LANES, PIECE, Way
from .accumulated import Accumulated
from .llvm_loops import apart, over_elements, over_parts
from .llvm_rule import Element, Rule
from .llvm_text import literal

TO_SUMS = ["i64 %place.first", "i64 %size", "ptr %sums", "i64 %sums.count"]
"""What a pass that measures is given behind the arguments of its rule."""


def updating(rule: Rule, dtype: str, *, drawn: bool) -> str:
    """Print ``@elements``, which writes the outputs of a rule where its inputs are.

    Parameters
    ----------
    rule : Rule
        The rule of the pass.
    dtype, drawn
        As for `print_llvm`.

    Returns
    -------
    str
        The function, whose arguments are those of the rule, `TO_DRAW` if it draws, and the size.
    """
    param, _, *kept = rule.elements
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
    for element, output in zip(kept, outputs, strict=False):  # what earlier passes kept comes last, and is not written
        if output != f"%{element.name}":  # what stays is there already
            lines += element.store(output)
    count = len(rule.elements)
    pointers, numbers = rule.arguments[:count], rule.arguments[count:]
    return over_elements([*apart(pointers), *numbers, *(TO_DRAW if drawn else []), "i64 %size"], lines)


TO_DRAW = ["i32 %first_key", "i32 %second_key", "i64 %start"]


def read_keys(place: int) -> list[str]:
    """Return the lines that read the two integers of a key, behind so many numbers of a row."""
    lines = []
    for k, name in enumerate(("first_key", "second_key")):
        for half in (0, 1):
            lines += [f"%{name}.at{half} = getelementptr float, ptr %row.first, i64 {place + 2 * k + half}"]
            lines += [f"%{name}.half{half} = load float, ptr %{name}.at{half}"]
        lines += [f"%{name} = call i32 @key(float %{name}.half0, float %{name}.half1)"]
    return lines


def measuring(
    rule: Rule, found: Sequence[Accumulated], kept: Sequence[tuple[int, Element]] = (), *, of: str = ""
) -> str:
    """Print ``@piece``, which finds what the outputs of a rule are of each `sums.PIECE` elements of a piece.

    Parameters
    ----------
    rule : Rule
        The rule of the pass.
    found : sequence of Accumulated
        What is found.
    kept : sequence of (int, Element)
        Which outputs are written as well, and where.
    of : str
        What the names of functions end in.

    Returns
    -------
    str
        The function, whose arguments are the pointers of the rule, where outputs are kept, the rule's numbers and
        `TO_SUMS`, with what it calls.
    """
    count = len(rule.elements)
    pointers, numbers = rule.arguments[:count], rule.arguments[count:]
    elements = [*rule.elements, *(element for _, element in kept)]
    pointers += [f"ptr %{element.name}.first" for _, element in kept]
    lanes = [f"lanes{k}." for k in range(len(found))]
    lines = [*rule.lines]
    for output, element in kept:
        lines += [element.find_at(), *element.store(rule.outputs[output])]
    for name, one in zip(lanes, found, strict=True):
        lines += _join(rule.outputs[one.output], one.way, name, rule.compute)
    rows = [f"ptr %{name}all" for name in lanes]
    # LLVM would go by the size of the sums alone
    text = over_elements(
        [*apart([*pointers, *rows]), *numbers, "i64 %size"], lines, of=of, wide=rule.compute == "float"
    )
    at_row = [f"ptr %{element.name}.row" for element in elements]
    each_row = [
        "%place.row = add i64 %part, %begin",
        "%left.row = sub i64 %here, %begin",
        f"%count = call i64 @llvm.smin.i64(i64 %left.row, i64 {LANES})",
        *(f"%{x.name}.row = getelementptr {x.stored}, ptr %{x.name}.first, i64 %place.row" for x in elements),
        f"call void @elements{of}({', '.join([*at_row, *rows, *numbers, 'i64 %count'])})",
    ]
    each_part = [
        "%left = sub i64 %size, %part",
        f"%here = call i64 @llvm.smin.i64(i64 %left, i64 {PIECE})",
        *(
            f"call void @fill(ptr %{name}all, double {literal(one.way.start)})"
            for name, one in zip(lanes, found, strict=True)
        ),
    ]
    folded = [
        f"%place.part = sdiv i64 %part, {PIECE}",
        "%place = add i64 %place.first, %place.part",
    ]
    for k, (name, one) in enumerate(zip(lanes, found, strict=True)):
        folded += [
            f"%{name}sum = call double @fold_{one.way.join}(ptr %{name}all)",
            f"%{name}line = mul i64 %sums.count, {k}",
            f"%{name}place = add i64 %{name}line, %place",
            f"%{name}at = getelementptr double, ptr %sums, i64 %{name}place",
            f"store double %{name}sum, ptr %{name}at",
        ]
    return text + over_parts([*pointers, *numbers, *TO_SUMS], lanes, each_part, each_row, folded, of=of)


def _join(value: str, way: Way, lane: str, compute: str) -> list[str]:
    """Return the lines that add what an element is to its lane."""
    lines = [f"%{lane}at = getelementptr double, ptr %{lane}all, i64 %i", f"%{lane}old = load double, ptr %{lane}at"]
    if compute == "float":
        lines += [f"%{lane}wide = fpext float {value} to double"]
        value = f"%{lane}wide"
    if way.factor != 1.0:
        lines += [f"%{lane}scaled = fmul double {value}, {literal(way.factor)}"]
        value = f"%{lane}scaled"
    if way.square and way.join == "add" and compute == "float":  # an exact square: with one rounding, fused or not
        values = f"double {value}, double {value}, double %{lane}old"
        lines += [f"%{lane}new = call double @llvm.fmuladd.f64({values})"]
        return [*lines, f"store double %{lane}new, ptr %{lane}at"]
    if way.square:
        lines += [f"%{lane}square = fmul double {value}, {value}"]
        value = f"%{lane}square"
    lines += [f"%{lane}new = call double @join_{way.join}(double {value}, double %{lane}old)"]
    return [*lines, f"store double %{lane}new, ptr %{lane}at"]
