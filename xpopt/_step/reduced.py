"""What a rule makes of norms and sums of gradients: whether that is finite, before anything is computed with it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.norms import clip
from .._arrays.parameter import dtype_text
from .._arrays.typing import Array, Scalars
from .._engine.eager.model import stated
from .._engine.together import answered
from .._graph.interpret import function_of, interpret
from .._graph.node import OF_MODEL
from .._graph.products import Sizes, sizes
from .._graph.questions import Question
from .._graph.reading import graph_of
from .._graph.rule import Rule
from .._graph.trace import InPlaceError, UntraceableError


def sizes_of(rule: Rule, h: Scalars) -> Sizes | None:
    """Return what a rule makes of sizes of its gradient; None where that is nothing, or it cannot be traced."""
    if rule.measured is not None and h.clip_norm is not None:  # what is clipped is not the gradient as it came
        return None
    try:
        graph = graph_of(rule, h, clipped=False)
    except (InPlaceError, UntraceableError):
        return None
    if "sizes" not in rule.made:
        rule.made["sizes"] = sizes(graph)
    found: Sizes | None = rule.made["sizes"]
    return found


def all_finite(
    formulas: Mapping[Any, tuple[Rule, Scalars]],
    of: Mapping[Hashable, Any],
    gradients: Mapping[Hashable, Array],
    entries: Mapping[Hashable, Any],
) -> dict[Hashable, Array]:
    """Say of gradients whether what comes of their norms and sums, and of those of the model, is finite.

    Parameters
    ----------
    formulas, of : as for `Guard.proceed`
        The same.
    gradients : mapping of hashable to array
        The gradients by name.
    entries : mapping of hashable to object
        What the cache holds, by name.

    Returns
    -------
    dict of hashable to array of bool, shape ()
        Of those whose rules read norms or sums.
    """
    said: dict[Question, list[Any]] = {}
    begun = {}
    for name, grad in gradients.items():
        rule, h = formulas[of[name]]
        rule = rule.chosen(dtype_text(grad.dtype), tuple(grad.shape))
        made = sizes_of(rule, h)
        library = library_of(grad)
        if made is None or library is None:
            continue
        found = _measured(library)(grad, made, h)
        for node, value in zip(made.reductions, found, strict=True):
            if isinstance(node.value, Question):
                said.setdefault(node.value, []).append(value)
        if 0 in grad.shape:  # which has said nothing, where other processes wait for what it says
            continue
        begun[name] = library, made, h, [*found, *_ones_of(library, rule, made, h, entries.get(name))]
    answers = answered(said) if said else {}
    return {
        name: _finite(library)(gradients[name], made, h, found, answers)
        for name, (library, made, h, found) in begun.items()
    }


def _ones_of(library: Library, rule: Rule, made: Sizes, h: Scalars, entry: Any) -> list[Any]:
    """Return the slots of one number that are read, as they are before the update."""
    fields = [str(node.value).removeprefix("s.") for node in made.ones]
    if isinstance(entry, dict) and all(field in entry for field in fields):
        slots = [(entry[field], library_of(entry[field])) for field in fields]
        # of a state that has just been loaded, they may be elsewhere
        return [x if of is library or of is None else float(next(iter(of.to_numpy([x])))) for x, of in slots]
    return [rule.specs[rule.fields.index(field)].number(h) for field in fields]


@functools.cache
def _measured(library: Library) -> Callable[..., list[Any]]:
    """Return what finds the sizes of a gradient; of those of the model, what it has to say to them."""

    def reduced(op: str, x: Array) -> Any:
        return 0.0 if 0 in x.shape else function_of(library.of_rules, op)(x)

    def measured(grad: Array, made: Sizes, h: Scalars) -> list[Any]:
        grad = library.reals(grad)
        grad = library.xp.astype(grad, library.compute_dtype(grad.dtype), copy=False)
        if h.clip_norm is not None:
            grad = clip(library.xp, grad, h.clip_norm, float64=library.has_float64(grad))
        arrays = interpret(made.products, library.of_rules)({"grad": grad}, h)
        return [
            stated(library, OF_MODEL[node.op], x) if node.op in OF_MODEL else reduced(node.op, x)
            for node, x in zip(made.reductions, arrays, strict=True)
        ]

    return library.guard(measured)


@functools.cache
def _finite(library: Library) -> Callable[..., Array]:
    xp = library.xp

    def finite(grad: Array, made: Sizes, h: Scalars, found: list[Any], answers: Mapping[Question, Any]) -> Array:
        dtype = library.compute_dtype(library.reals(grad).dtype)
        values = [
            answers[node.value] if isinstance(node.value, Question) else x
            for node, x in zip((*made.reductions, *made.ones), found, strict=True)
        ]
        numbers = [library.full((), x, dtype, grad) if isinstance(x, float) else xp.astype(x, dtype) for x in values]
        names = [str(node.value) for node in made.found.inputs]
        results = interpret(made.found, library.of_rules)(dict(zip(names, numbers, strict=True)), h)
        return xp.all(xp.isfinite(xp.stack([xp.asarray(x) for x in results])))

    return library.guard(finite)
