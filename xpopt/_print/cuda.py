"""A graph as CUDA C that needs no header: one launch updates many arrays, a block for each piece of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import NamedTuple

from .._graph.node import TRUTHS, Graph
from .._graph.ones import split
from .cuda_narrow import BFLOAT16, DRAW_BFLOAT16, DRAW_FLOAT16, FLOAT16, RANDOM
from .cuda_text import CLIP, FINITE, GUARD, HEAD, KEYWORDS, NARROW_SQUARES, ONES, UPDATE, WIDE_SQUARES
from .host import INFIX
from .loop import Body, Language, emit

PIECE = 4096
"""Elements that one block takes: some vectors for each thread, and many blocks from few arrays."""

THREADS = 256
"""Threads of a block."""

OPTIONS = ("--fmad=false",)
"""What a source is compiled with: every product is rounded before it is added to anything."""


class _Dtype(NamedTuple):
    """What CUDA C makes of a dtype of parameters."""

    stored: str  # the type of param and grad
    number: str  # the type of the arithmetic, the numbers and the slots
    suffix: str  # of mathematical functions of a number
    load: str = "{0}"
    store: str = "{0}"
    conversions: str = ""
    draw: str = ""  # stores what is rounded stochastically
    drawing: str = ""  # the conversions for that, after the others


_DTYPES = {
    "float16": _Dtype(
        *("unsigned short", "float", "f", "load_float16({0})", "store_float16({0})", FLOAT16),
        *("draw_float16({0}, {1})", RANDOM + DRAW_FLOAT16),
    ),
    "bfloat16": _Dtype(
        *("unsigned short", "float", "f", "load_bfloat16({0})", "store_bfloat16({0})", BFLOAT16),
        *("draw_bfloat16({0}, {1})", RANDOM + DRAW_BFLOAT16),
    ),
    "float32": _Dtype("float", "float", "f"),
    "float64": _Dtype("double", "double", ""),
}

_BYTES = {"unsigned short": 2, "float": 4, "double": 8}

_OPERATIONS = {
    **{op: f"({{0}} {sign} {{1}})" for op, sign in INFIX.items()},
    "pow": "pow$f({0}, {1})",
    "negative": "(-{0})",
    "abs": "fabs$f({0})",
    "sign": "({0} != {0} ? {0} : ($number)(({0} > 0) - ({0} < 0)))",
    "sqrt": "sqrt$f({0})",
    "square": "({0} * {0})",
    "exp": "exp$f({0})",
    "log": "log$f({0})",
    "maximum": "({0} > {1} || {0} != {0} ? {0} : {1})",  # of two zeros the second, as NumPy's on x86
    "minimum": "({0} < {1} || {0} != {0} ? {0} : {1})",
    "where": "({0} ? {1} : {2})",
    "isnan": "({0} != {0})",
    "isinf": "isinf({0})",
    "isfinite": "isfinite({0})",
    "logical_and": "({0} & {1})",
    "logical_or": "({0} | {1})",
    "logical_xor": "({0} ^ {1})",
    "logical_not": "(!{0})",
}

_SCAFFOLD = (
    *("Pack", "Params", "Slots", "THREADS", "at", "first", "i", "k", "last", "numbers", "ones", "threadIdx", "width"),
    *("blockIdx", "proceed", "table", "tensor", "tensors"),
    *("load_float16", "store_float16", "load_bfloat16", "store_bfloat16", "isinf", "isfinite"),
    *("draw_float16", "draw_bfloat16", "random_bits", "key_of", "key", "Key"),
    *(f"{name}{suffix}" for name in ("pow", "fabs", "sqrt", "exp", "log") for suffix in ("", "f")),
)

_RESERVED = {*_SCAFFOLD, *KEYWORDS.split()}


def print_cuda(
    graph: Graph, dtype: str = "float32", *, guarded: bool = False, drawn: bool = False, kept: Sequence[str] = ()
) -> str:
    """Print a graph for CUDA.

    Parameters
    ----------
    graph : Graph
        What to print.
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the parameter and its gradient. The arithmetic, the slots and the numbers are of float64 for
        float64, else of float32.
    guarded : bool
        Whether it is decided on the device if anything is to change.
    drawn : bool
        Whether a parameter of 16 bits is rounded stochastically. The numbers of each tensor are then followed by its
        key: the upper and the lower half of two integers.
    kept : sequence of str
        The dtype of each slot but those of one number, if not all are of that of the arithmetic; 16 bits beside float32
        alone.

    Returns
    -------
    str
        A source with the kernel ``update(table, tensors)``, launched with a block of `THREADS` threads for each piece
        of `PIECE` elements:

        ========== ===================================================================================================
        table      for each tensor, in words of 64 bits: the addresses of param, grad, where the new param goes, and the
                   slots, those of one number last; its size, how many pieces come before its own, and how many bytes
                   before its numbers. After all tensors the numbers, in the compute dtype. By value where TABLE_BYTES
                   is defined, else by address
        tensors    how many there are
        ========== ===================================================================================================

        If the graph clips, ``update`` takes one more: two factors for each tensor, in the compute dtype. Two kernels
        find them: ``sum_squares(table, tensors, sums)``, launched as ``update`` is, writes a float64 for each piece, or
        three where that is the dtype. Then ``find_factors(table, sums, factors)`` takes a block for each tensor. A
        tensor in the table then ends with its largest norm, a float64.

        If there are slots of one number, ``update`` takes, before these factors, numbers of each tensor in the compute
        dtype. ``find_ones(table, tensors, ones)`` finds them, a thread for each tensor, and writes the new slots of one
        number. What it reads of the step follows the numbers of ``update``.

        If it is guarded, ``find_ones`` and ``update`` take the address of a bool as their last: where that is false,
        the new param is the old one, and the slots stay.
    """
    kind = _DTYPES[dtype]
    operations = {op: Template(text).substitute(f=kind.suffix, number=kind.number) for op, text in _OPERATIONS.items()}
    language = Language(operations, f"const {kind.number} {{0}} = {{1}};", "const bool {0} = {1};", _RESERVED)
    parts = split(graph)
    body, of_step = emit(parts.arrays, language), len(parts.arrays.numbers())
    ones = None if parts.ones is None else _Ones.of(parts.ones, emit(parts.ones, language), len(body.numbers) - of_step)
    param, grad, *slots = body.inputs
    kinds = [_Kept.of(of, dtype) for of in kept or [_compute(dtype)] * len(slots)]
    converted = {of.conversions: None for of in kinds if of.conversions != kind.conversions}
    new_param, *new_slots = body.outputs
    read, store = kind.load.format, kind.draw if drawn else kind.store
    each_tensor = [
        *([f"typedef Pack<{kind.number}, width> Slots;"] if any(of.pack == "Slots" for of in kinds) else []),
        *(
            f"const {kind.number} {name} = numbers[{k}];  // {what}"
            for k, (name, what) in enumerate(body.numbers[:of_step])
        ),
        *(
            f"const {kind.number} {name} = ones[{k}];  // {what}"
            for k, (name, what) in enumerate(body.numbers[of_step:])
        ),
        *(
            [f"const Key key = key_of(numbers + {of_step + (0 if ones is None else len(ones.body.numbers))});"]
            if drawn
            else []
        ),
    ]
    loads = [
        f"Params at_{param} = ((const Params *)at.{param})[i];",
        f"const Params at_{grad} = ((const Params *)at.{grad})[i];",
        *(f"{of.pack} at_{slot} = ((const {of.pack} *)at.{slot})[i];" for slot, of in zip(slots, kinds, strict=True)),
    ]
    each_element = [
        *(f"const {kind.number} {name} = {read(f'at_{name}.of[k]')};" for name in (param, grad)),
        *(
            f"const {kind.number} {slot} = {of.load.format(f'at_{slot}.of[k]')};"
            for slot, of in zip(slots, kinds, strict=True)
        ),
        *body.lines,
        f"at_{param}.of[k] = {store.format(new_param, 'random_bits(i * width + k, key)')};",
        *(
            f"at_{slot}.of[k] = {of.store.format(value)};"
            for slot, of, value in zip(slots, kinds, new_slots, strict=True)
            if value != slot
        ),
    ]
    stores = [
        f"((Params *)at.target)[i] = at_{param};",
        *(
            f"(({of.pack} *)at.{slot})[i] = at_{slot};"
            for slot, of, value in zip(slots, kinds, new_slots, strict=True)
            if value != slot  # what stays is there already
        ),
    ]
    clips = bool(body.factors)
    words = {
        **_words(kind, dtype),
        "conversions": kind.conversions + "".join(converted) + (kind.drawing if drawn else ""),
        "bound": "    double clip_norm;\n" if clips else "",
        "title": f"{graph.name}: param and grad of {dtype}, computed in {_compute(dtype)}.",
        "pointers": "\n".join(
            [
                f"    const {kind.stored} *{param}, *{grad};",
                f"    {kind.stored} *target;  // where the new param goes",
                *_pointers(slots, kinds),
                *([f"    {kind.number} {', '.join(f'*{slot}' for slot in ones.body.inputs)};"] if ones else []),
            ]
        ),
        "width": 16 // _BYTES[kind.number if slots else kind.stored],
        "param": param,
        "grad": grad,
        "each_tensor": _indented(1, each_tensor),
        "loads": _indented(2, loads),
        "each_element": _indented(3, each_element),
        "stores": _indented(2, stores),
        "addresses": "\n        | ".join(f"(unsigned long long)at.{name}" for name in (param, grad, "target", *slots)),
        **_of_ones(ones, kind.number, of_step, guarded),
        "factor": "".join(f", {kind.number} {name}" for name in body.factors),
        "factors": f", const {kind.number} *factors" if clips else "",
        "guard": ", const bool *proceed" if guarded else "",
        "leave": Template(GUARD).substitute(param=param) if guarded else "",
        "and_factor": "".join(f", factors[2 * piece.tensor + {k}]" for k in range(len(body.factors))),
    }
    squares = WIDE_SQUARES if dtype == "float64" else NARROW_SQUARES
    before = [*([ONES] if ones else []), *([squares, CLIP] if clips else [])]
    return Template("".join([HEAD, *before, UPDATE])).substitute(words)


class _Kept(NamedTuple):
    """How a slot is read and written."""

    stored: str
    pack: str
    load: str = "{0}"
    store: str = "{0}"
    conversions: str = ""

    @classmethod
    def of(cls, slot: str, dtype: str) -> _Kept:
        """Return it for the dtype of a slot and that of its parameter."""
        number, kind = _DTYPES[dtype].number, _DTYPES[slot]
        if slot == _compute(dtype):
            return cls(number, "Slots")
        pack = f"Pack<{kind.stored}, width>"
        if kind.conversions:
            return cls(kind.stored, pack, kind.load, kind.store, kind.conversions)
        return cls(kind.stored, pack, f"({number}){{0}}", f"({kind.stored})({{0}})")


def _pointers(slots: Sequence[str], kinds: Sequence[_Kept]) -> list[str]:
    """Return the declarations of what points to slots, those of one type in one line."""
    lines: dict[str, list[str]] = {}
    for slot, of in zip(slots, kinds, strict=True):
        lines.setdefault(of.stored, []).append(f"*{slot}")
    return [f"    {stored} {', '.join(names)};" for stored, names in lines.items()]


class _Ones(NamedTuple):
    """What finds the numbers of each tensor."""

    body: Body
    read: int  # how many of them the update reads
    is_truth: list[bool]

    @classmethod
    def of(cls, graph: Graph, body: Body, count: int) -> _Ones:
        return cls(body, count, [node.kind in TRUTHS for node in graph.outputs[:count]])


def _of_ones(ones: _Ones | None, number: str, before: int, guarded: bool) -> dict[str, object]:
    """Return what is put into a source where there are slots of one number."""
    if ones is None:
        return {"one": "", "ones": "", "and_one": ""}
    body, count = ones.body, ones.read
    keep = [f"*at.{name} = {value};" for name, value in zip(body.inputs, body.outputs[count:], strict=True)]
    values = [f"({value} ? 1 : 0)" if truth else value for value, truth in zip(body.outputs, ones.is_truth)]  # noqa: B905
    each = [
        *(f"const {number} {name} = numbers[{k}];  // {what}" for k, (name, what) in enumerate(body.numbers)),
        *(f"const {number} {name} = *at.{name};" for name in body.inputs),
        *body.lines,
        *(f"ones[{count}LL * tensor + {k}] = {value};" for k, value in enumerate(values)),
    ]
    return {
        "one": f", const {number} *ones",
        "ones": f", const {number} *ones",
        "and_one": f", ones + {count}LL * piece.tensor",
        "numbers_before": before,
        "each_one": _indented(1, each),
        "keep_ones": _indented(1, ["if (*proceed) {", *(f"    {line}" for line in keep), "}"] if guarded else keep),
    }


def print_finite(dtype: str) -> str:
    """Print what says whether gradients are finite, and within a limit, for CUDA.

    Parameters
    ----------
    dtype : {"float16", "bfloat16", "float32", "float64"}
        The dtype of the gradients.

    Returns
    -------
    str
        A source with the kernel ``check_finite(table, tensors, largest, finite)``, launched as ``update`` of
        `print_cuda` is: in its table a tensor has one address, that of its gradient. `largest` is a finite number of
        the dtype of the arithmetic. It writes false to the bool `finite` if an element is NaN, or larger, or nothing.
    """
    kind = _DTYPES[dtype]
    words = {
        **_words(kind, dtype),
        "title": f"Whether gradients of {dtype} are finite.",
        "bound": "",
        "pointers": f"    const {kind.stored} *grad;",
    }
    return Template(HEAD + FINITE).substitute(words)


def _words(kind: _Dtype, dtype: str) -> dict[str, object]:
    """Return what is put into any source."""
    return {
        "dtype": dtype,
        "stored": kind.stored,
        "number": kind.number,
        "piece": PIECE,
        "threads": THREADS,
        "conversions": kind.conversions,
        "element": kind.load.format("elements[i]"),
    }


def _compute(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _indented(level: int, lines: list[str]) -> str:
    """Join the lines of a template's place, which ends its own."""
    return "".join(f"{'    ' * level}{line}\n" for line in lines)
