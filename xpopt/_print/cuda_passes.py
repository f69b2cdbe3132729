"""What CUDA sources find of whole tensors, and of all together: squares for clip factors, and passes that measure."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from .._arrays.sums import Way, ways
from .._graph.passes import Pass, Reduction
from .cuda_found import Context, Found, Launch, find_ones
from .cuda_language import DTYPES, indented, language
from .cuda_sums import MEASURE, NARROW_FACTORS, OF_MODEL, REDUCED, SUMS, WIDE_FACTORS, WIDE_NORM
from .loop import emit

_JOINS = {"add": "ADD", "maximum": "MAXIMUM", "minimum": "MINIMUM"}

_STARTS = {"add": "0", "maximum": "-infinity()", "minimum": "infinity()"}


def joining(context: Context) -> str:
    """Return what all that measures is made of."""
    norms = context.wide and any(of.op == "vector_norm" for of in context.reductions)
    return SUMS + (WIDE_NORM if norms else "")


def find_factors(context: Context, grad: str) -> Found:
    """Print what finds the two factors of each tensor whose gradient, called `grad`, is clipped."""
    element = f"const {context.number} x = {DTYPES[context.dtype].load.format(f'at.{grad}[i]')};"
    of_grad = [("x", way) for way in ways("vector_norm", wide=context.wide)]
    what = "what the squares of the gradient come to in each piece"
    measure = _measure(context, "sum_squares", what, "", [], [element], of_grad)
    totals = ", ".join(f"total{k}" for k in range(len(of_grad)))
    words = {
        "kernel": "find_factors",
        "takes": f", {context.number} *factors",
        "ways": len(of_grad),
        "totals": _totals("sums", "pieces", [way for _, way in of_grad]),
        "kept": indented(2, [f"find_factors_of({totals}, at.clip_norm, factors + 2 * blockIdx.x);"]),
    }
    bound = Template(WIDE_FACTORS if context.wide else NARROW_FACTORS).substitute(dtype=context.dtype)
    return Found(
        bound + measure + Template(REDUCED).substitute(words),
        [
            Launch("sum_squares", "pieces", ("table", "tensors", "sums")),
            Launch("find_factors", "tensors", ("table", "sums", "factors")),
        ],
        {"sums": len(of_grad), "factors": 2},
    )


def find_reduced(context: Context, k: int, one: Pass, offset: int, offset_of_ones: int) -> Found:
    """Print what finds the reductions of pass `k`; its numbers of the step are behind so many others."""
    arrays, of_ones = one.parts.arrays, one.parts.ones
    of_step = len(arrays.numbers())
    count = len(arrays.scalars()) - of_step
    first = Found("", [], {})
    if of_ones is not None and count:
        first = find_ones(context, of_ones, offset_of_ones, count, kernel=f"find_ones_{k}", reader=f"measure_{k}")
    body = emit(arrays, language(context.dtype))
    read = set(arrays.ordered())
    loads = [DTYPES[context.dtype].load] * 2 + [of.load for of in context.slots]
    inputs = [pair for node, *pair in zip(arrays.inputs, body.inputs, loads, strict=True) if node in read]
    takes = [*(["ones"] if count else []), *(["factors"] if body.factors else [])]
    of_tensor = [
        *context.numbers(body.numbers[:of_step], offset),
        *context.constants(body.numbers[of_step:], f"ones[{count}LL * piece.tensor + {{}}]"),
        *(f"const {context.number} {name} = factors[2LL * piece.tensor + {i}];" for i, name in enumerate(body.factors)),
    ]
    of_element = [
        *(f"const {context.number} {name} = {load.format(f'at.{name}[i]')};" for name, load in inputs),
        *body.lines,
    ]
    each = [(of, ways(of.op, wide=context.wide)) for of in one.reductions]
    found = [(body.outputs[of.output], way) for of, of_one in each for way in of_one]
    parameters = "".join(f", const {context.number} *{name}" for name in takes)
    what = f"what {arrays.name} reduces comes to in each piece"
    measure = _measure(context, f"measure_{k}", what, parameters, of_tensor, of_element, found)
    reduced = _reduced(context, k, each)
    launches = [Launch(f"measure_{k}", "pieces", ("table", "tensors", *takes, "sums")), *reduced.launches]
    widths = {"sums": len(found), **reduced.widths, **first.widths}
    return Found(first.text + measure + reduced.text, [*first.launches, *launches], widths, reduced.asked)


def _measure(
    context: Context,
    kernel: str,
    what: str,
    parameters: str,
    of_tensor: list[str],
    of_element: list[str],
    found: Sequence[tuple[str, Way]],
) -> str:
    """Print what joins numbers of each element of a piece."""
    folds = [f"own{k} = fold_block<{_JOINS[way.join]}>(own{k});" for k, (_, way) in enumerate(found)]
    starts = [f"double own{k} = {_STARTS[way.join]};" for k, (_, way) in enumerate(found)]
    joins = []
    for k, (value, way) in enumerate(found):
        scaled = f" * {way.factor.hex().replace('.0000000000000', '')}" if way.factor != 1.0 else ""
        joins.append(f"const double value{k} = {f'({value})' if scaled else value}{scaled};")
        term = f"value{k} * value{k}" if way.square else f"value{k}"
        joins.append(f"own{k} = join<{_JOINS[way.join]}>(own{k}, {term});")
    words = {
        "kernel": kernel,
        "what": what,
        "takes": parameters,
        "each_tensor": indented(1, [*of_tensor, *starts]),
        "each_element": indented(2, [*of_element, *joins]),
        "folded": indented(1, folds),
        "kept": indented(2, [f"sums[{len(found)}LL * blockIdx.x + {k}] = own{k};" for k in range(len(found))]),
    }
    return Template(MEASURE).substitute(words)


_Each = Sequence[tuple[Reduction, tuple[Way, ...]]]


def _reduced(context: Context, k: int, each: _Each) -> Found:
    """Print what finds the reductions of pass `k` from the sums of the pieces."""
    joined = [way for _, of_one in each for way in of_one]
    asked = tuple(of for of, _ in each if of.of_model is not None)
    said = [way for of, of_one in each if of.of_model is not None for way in of_one]
    kept, place, at = [], 0, 0
    for of, of_one in each:
        totals = [f"total{place + i}" for i in range(len(of_one))]
        place += len(of_one)
        if of.of_model is None:
            of_all = context.of_tensors
            value = f"({context.number})({_finished(of.op, totals)})"
            kept.append(f"reduced[{len(of_all)}LL * blockIdx.x + {of_all.index(of.name)}] = {value};")
        else:
            kept += [f"totals[{len(said)}LL * blockIdx.x + {at + i}] = {total};" for i, total in enumerate(totals)]
            at += len(of_one)
    takes = [*(["reduced"] if len(asked) < len(each) else []), *(["totals"] if asked else [])]
    types = {"reduced": context.number, "totals": "double"}
    words = {
        "kernel": f"find_reduced_{k}",
        "takes": "".join(f", {types[name]} *{name}" for name in takes),
        "ways": len(joined),
        "totals": _totals("sums", "pieces", joined),
        "kept": indented(2, kept),
    }
    text = Template(REDUCED).substitute(words)
    launches = [Launch(f"find_reduced_{k}", "tensors", ("table", "sums", *takes))]
    widths = {"reduced": len(context.of_tensors)} if "reduced" in takes else {}
    if not asked:
        return Found(text, launches, widths)
    kept, place = [], 0
    for of, of_one in each:
        if of.of_model is not None:
            value = _finished(of.op, [f"total{place + i}" for i in range(len(of_one))])
            kept.append(f"*said_{of.name} = {value};")
            place += len(of_one)
    words = {
        "kernel": f"find_model_{k}",
        "takes": "".join(f", double *said_{of.name}" for of in asked),
        "totals": _totals("totals", "tensors", said),
        "kept": indented(2, kept),
    }
    takes_model = ("tensors", "totals", *(f"said_{of.name}" for of in asked))
    launches.append(Launch(f"find_model_{k}", "one", takes_model))
    return Found(text + Template(OF_MODEL).substitute(words), launches, {**widths, "totals": len(said)}, asked)


def _totals(array: str, count: str, joined: Sequence[Way]) -> str:
    """Return the lines that find what numbers side by side come to."""
    return indented(
        1,
        [
            f"const double total{k} = total_of<{_JOINS[way.join]}>("
            f"{array} + {k}, {count}, {len(joined)}, {_STARTS[way.join]});"
            for k, way in enumerate(joined)
        ],
    )


def _finished(op: str, totals: Sequence[str]) -> str:
    """Return a reduction of what its ways have come to, as `sums.finished` does."""
    if op == "mean":
        return f"{totals[0]} / at.size"
    if op != "vector_norm":
        return totals[0]
    return f"norm_of({', '.join(totals)})" if len(totals) > 1 else f"sqrt({totals[0]})"
