"""A graph as CUDA C that needs no header: one launch updates many arrays, a block for each piece of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from string import Template
from typing import NamedTuple

from .._arrays.sums import LANES, PIECE
from .._graph.node import Graph
from .._graph.passes import Passes, Reduction, cut
from .cuda_found import Context, Found, Launch, find_ones
from .cuda_language import BYTES, DTYPES, Dtype, Stored, compute_of, indented, language
from .cuda_passes import find_factors, find_reduced, joining
from .cuda_text import FINITE, GUARD, HEAD, UPDATE
from .loop import emit

THREADS = LANES
"""Threads of a block, each of which is a lane of a sum. A block takes a piece of `PIECE` elements."""

OPTIONS = ("--fmad=false",)
"""What a source is compiled with: every product is rounded before it is added to anything."""


class Stage(NamedTuple):
    """Launches up to what is asked of the whole model; the last ones ask for nothing.

    Parameters
    ----------
    launches : tuple of Launch
        In their order.
    asked : tuple of Reduction
        What is asked then.
    """

    launches: tuple[Launch, ...]
    asked: tuple[Reduction, ...]


class Printed(NamedTuple):
    """A source, and how it is launched.

    Parameters
    ----------
    text : str
        CUDA C, as `print_cuda` describes it.
    stages : tuple of Stage
        The launches; the last stage writes.
    widths : dict of str to int
        As for `Found`.
    numbers : tuple of Graph
        Whose numbers of the step follow each other in a row of the table.
    """

    text: str
    stages: tuple[Stage, ...]
    widths: dict[str, int]
    numbers: tuple[Graph, ...]


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

        If there are slots of one number, or something is reduced, ``update`` takes, before these factors, numbers of
        each tensor in the compute dtype. ``find_ones(table, tensors, ones)`` finds them, a thread for each tensor, and
        writes the new slots of one number. What it reads of the step follows the numbers of ``update``.

        Each pass that measures has two kernels more, launched as those that find the factors are: ``measure_0``, and
        ``find_reduced_0``, which writes an array ``reduced`` of numbers of each tensor, and to ``totals`` what is asked
        of the model, of which ``find_model_0`` makes one number. A pass may have a kernel like ``find_ones`` before
        them. `Printed.stages` says what each kernel takes.

        If it is guarded, ``find_ones`` and ``update`` take the address of a bool as their last: where that is false,
        the new param is the old one, and the slots stay.
    """
    return printed(cut(graph), dtype, guarded=guarded, drawn=drawn, kept=kept).text


def printed(passes: Passes, dtype: str, *, guarded: bool, drawn: bool, kept: Sequence[str] = ()) -> Printed:
    """Print a graph in passes, as `print_cuda` does, and say how the source is launched."""
    kind, parts = DTYPES[dtype], [passes.last, *(one.parts for one in passes.before)]
    of_step = [0 if part is None else len(part.numbers()) for of in parts for part in (of.arrays, of.ones)]
    *offsets, count = accumulate(of_step, initial=0)
    of_ones, graph = passes.last
    slots = [Stored.of(of, dtype) for of in kept or [compute_of(dtype)] * (len(graph.inputs) - 2)]
    context = Context(dtype, slots, tuple(of for one in passes.before for of in one.reductions))
    _, grad, *_ = emit(graph, language(dtype)).inputs
    clips = any(of.arrays.factors() for of in parts)
    before = [find_factors(context, grad)] if clips else []
    before += [find_reduced(context, k, one, *offsets[2 * k + 2 : 2 * k + 4]) for k, one in enumerate(passes.before)]
    met = len(graph.scalars()) - len(graph.numbers())
    stores = of_ones is not None and bool(of_ones.outputs)
    after = [find_ones(context, of_ones, offsets[1], met, guarded=guarded)] if stores and of_ones is not None else []
    after.append(_update(graph, context, met=met, key=count if drawn else -1, guarded=guarded, clips=clips))
    words = {
        **_words(kind, dtype),
        "conversions": _conversions(kind, slots, drawn=drawn),
        "bound": "    double clip_norm;\n" if clips else "",
        "title": f"{graph.name}: param and grad of {dtype}, computed in {compute_of(dtype)}.",
        "pointers": "\n".join(_pointers(graph, context, of_ones)),
    }
    texts = [Template(HEAD).substitute(words), *([joining(context)] if before else [])]
    found = [*before, *after]
    widths: dict[str, int] = {}
    for one in found:
        widths.update({name: max(width, widths.get(name, 0)) for name, width in one.widths.items()})
    numbers = tuple(part for of in parts for part in (of.arrays, of.ones) if part is not None)
    return Printed("".join([*texts, *(one.text for one in found)]), _stages(found), widths, numbers)


def _stages(found: Sequence[Found]) -> tuple[Stage, ...]:
    stages, launches = [], []
    for one in found:
        launches += one.launches
        if one.asked:
            stages.append(Stage(tuple(launches), one.asked))
            launches = []
    return *stages, Stage(tuple(launches), ())


def _update(graph: Graph, context: Context, *, met: int, key: int, guarded: bool, clips: bool) -> Found:
    """Print what writes; a key, if there is one, lies behind so many numbers."""
    kind, slots_of = DTYPES[context.dtype], context.slots
    number, body = kind.number, emit(graph, language(context.dtype))
    of_step = len(body.numbers) - met
    param, grad, *slots = body.inputs
    new_param, *new_slots = body.outputs
    read, store = kind.load.format, kind.draw if key >= 0 else kind.store
    each_tensor = [
        *([f"typedef Pack<{number}, width> Slots;"] if any(of.pack == "Slots" for of in slots_of) else []),
        *context.constants(body.numbers[:of_step], "numbers[{}]"),
        *context.constants(body.numbers[of_step:], "ones[{}]"),
        *([f"const Key key = key_of(numbers + {key});"] if key >= 0 else []),
    ]
    loads = [
        f"Params at_{param} = ((const Params *)at.{param})[i];",
        f"const Params at_{grad} = ((const Params *)at.{grad})[i];",
        *(
            f"{of.pack} at_{slot} = ((const {of.pack} *)at.{slot})[i];"
            for slot, of in zip(slots, slots_of, strict=True)
        ),
    ]
    each_element = [
        *(f"const {number} {name} = {read(f'at_{name}.of[k]')};" for name in (param, grad)),
        *(
            f"const {number} {slot} = {of.load.format(f'at_{slot}.of[k]')};"
            for slot, of in zip(slots, slots_of, strict=True)
        ),
        *body.lines,
        f"at_{param}.of[k] = {store.format(new_param, 'random_bits(i * width + k, key)')};",
        *(
            f"at_{slot}.of[k] = {of.store.format(value)};"
            for slot, of, value in zip(slots, slots_of, new_slots, strict=True)
            if value != slot
        ),
    ]
    stores = [
        f"((Params *)at.target)[i] = at_{param};",
        *(
            f"(({of.pack} *)at.{slot})[i] = at_{slot};"
            for slot, of, value in zip(slots, slots_of, new_slots, strict=True)
            if value != slot  # what stays is there already
        ),
    ]
    takes = [*(["ones"] if met else []), *(["factors"] if body.factors else [])]
    words = {
        **_words(kind, context.dtype),
        "width": 16 // BYTES[number if slots else kind.stored],
        "each_tensor": indented(1, each_tensor),
        "loads": indented(2, loads),
        "each_element": indented(3, each_element),
        "stores": indented(2, stores),
        "addresses": "\n        | ".join(f"(unsigned long long)at.{name}" for name in (param, grad, "target", *slots)),
        "one": f", const {number} *ones" if met else "",
        "and_one": f", ones + {met}LL * piece.tensor" if met else "",
        "factor": "".join(f", {number} {name}" for name in body.factors),
        "and_factor": "".join(f", factors[2 * piece.tensor + {k}]" for k in range(len(body.factors))),
        "takes": "".join(f", const {number} *{name}" for name in takes),
        "guard": ", const bool *proceed" if guarded else "",
        "leave": Template(GUARD).substitute(param=param) if guarded else "",
    }
    arguments = ("table", "tensors", *takes, *(["proceed"] if guarded else []))
    return Found(Template(UPDATE).substitute(words), [Launch("update", "pieces", arguments)], {})


def _conversions(kind: Dtype, slots: Sequence[Stored], *, drawn: bool) -> str:
    of_slots = {of.conversions: None for of in slots if of.conversions != kind.conversions}
    return kind.conversions + "".join(of_slots) + (kind.drawing if drawn else "")


def _pointers(graph: Graph, context: Context, ones: Graph | None) -> list[str]:
    """Return the declarations of what a tensor of the table points to, slots of one type in one line."""
    kind = DTYPES[context.dtype]
    param, grad, *slots = emit(graph, language(context.dtype)).inputs
    lines: dict[str, list[str]] = {}
    for slot, of in zip(slots, context.slots, strict=True):
        lines.setdefault(of.stored, []).append(f"*{slot}")
    of_ones = () if ones is None else emit(ones, language(context.dtype)).inputs
    found = {of.name for of in context.reductions}
    own = [
        f"*{name}" for name, node in zip(of_ones, ones.inputs if ones else (), strict=True) if node.value not in found
    ]
    return [
        f"    const {kind.stored} *{param}, *{grad};",
        f"    {kind.stored} *target;  // where the new param goes",
        *(f"    {stored} {', '.join(names)};" for stored, names in lines.items()),
        *([f"    {kind.number} {', '.join(own)};"] if own else []),
    ]


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
    kind = DTYPES[dtype]
    words = {
        **_words(kind, dtype),
        "title": f"Whether gradients of {dtype} are finite.",
        "bound": "",
        "pointers": f"    const {kind.stored} *grad;",
    }
    return Template(HEAD + FINITE).substitute(words)


def _words(kind: Dtype, dtype: str) -> dict[str, object]:
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
