"""One step of all parameters, which wait for each other where a rule reads the whole model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays.library import Library
from .._arrays.namespace import library_of
from .._arrays.norms import product_of_norms, root_of_norm, scaled_norm
from .._graph.node import OF_MODEL
from .._graph.questions import Question
from .leaf import Stepped


def all_stepped(steps: Mapping[Hashable, Any]) -> dict[Hashable, Stepped]:
    """Let all parameters go on together: each waits for what is found of the whole model."""
    done: dict[Hashable, Stepped] = {}
    waiting: dict[Hashable, tuple[Question, Any]] = {}
    answered: set[Question] = set()
    answers: dict[Hashable, Any] = dict.fromkeys(steps)
    while answers:
        for name, answer in answers.items():
            waiting.pop(name, None)
            try:
                waiting[name] = steps[name].send(answer)
            except StopIteration as stopped:
                done[name] = stopped.value
        answers = {}
        for question in {question for question, _ in waiting.values()}:
            of = {name: _as_array(x) for name, (asked, x) in waiting.items() if asked == question}
            if question in answered:
                raise TypeError(
                    "two rules of one model read h.model in different orders; let them read it in the same order, or "
                    "use update_all"
                )
            answered.add(question)
            library = library_of(next(iter(of.values())))
            assert library is not None
            total = _joined(library, question.op, list(of.values()))
            answers |= {name: library.xp.astype(total, x.dtype, copy=False) for name, x in of.items()}
    return {name: done[name] for name in steps}


def _as_array(x: Any) -> Any:
    """Return what NumPy's arithmetic makes a scalar of, as the array of shape () that it was."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def _joined(library: Library, op: str, arrays: Sequence[Any]) -> Any:
    """Return a reduction of an array of each parameter."""
    xp, wide = library.xp, library.has_float64(arrays[0])
    filled = [x for x in arrays if 0 not in x.shape]
    if not filled:
        return library.full((), -math.inf if op == "model_max" else 0.0, arrays[0].dtype, arrays[0])
    if OF_MODEL[op] == "vector_norm":
        scale, rest = product_of_norms(xp, [scaled_norm(xp, x, float64=wide) for x in filled])
        return root_of_norm(xp, scale, rest) if op == "model_root" else scale * rest
    filled = [xp.astype(x, xp.float64 if wide else xp.float32, copy=False) for x in filled]
    if op == "model_max":
        return xp.max(xp.stack([xp.max(x) for x in filled]))
    return xp.sum(xp.stack([xp.sum(x) for x in filled]))
