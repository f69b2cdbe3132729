"""Which kernel in machine code a tensor is for."""

from __future__ import annotations

import math

from ..._arrays.library import real_of
from ..._arrays.parameter import dtype_text
from ..._graph.node import Graph
from ..._graph.passes import Passes, passes_of
from ..._graph.rule import Rule
from ..._print.llvm_whole import largest
from ..kernel import Variant
from ..tensor import Tensor
from .break_even import INEXACT


def variant_of(tensor: Tensor) -> Variant:
    """Return what the kernel of a tensor is made for; its rule has a graph."""
    spec = tensor.spec
    dtype = real_of(dtype_text(spec.dtype))
    size = math.prod(spec.shape) * spec.parts
    whole = 0 < size <= _largest_whole(tensor, dtype)
    return Variant("compiled", dtype, tensor.clipped, tensor.key is not None, whole=whole)


def _largest_whole(tensor: Tensor, dtype: str) -> int:
    """Return how many elements a tensor of this rule may have to go through all passes at once; 0 where none may."""
    rule = tensor.rule
    assert tensor.h is not None
    passes, key = passes_of(rule, tensor.h, clipped=tensor.clipped, keep=True), ("largest", tensor.clipped, dtype)
    found: tuple[Passes, int] | None = rule.made.get(key)
    if found is None or found[0] is not passes:
        found = rule.made[key] = passes, largest(passes, dtype) if _may_be_whole(rule, passes) else 0
    return found[1]


def _may_be_whole(rule: Rule, passes: Passes) -> bool:
    """Return whether nothing is asked of a model, and machine code computes NumPy's numbers of a tensor."""
    parts = [*(one.parts for one in passes.before), passes.last]
    ones: list[Graph] = [of.ones for of in parts if of.ones is not None]
    exact = not any(node.op in INEXACT for graph in ones for node in graph.arrays())
    return bool(passes.before) and exact and not passes.questions() and not (rule.ones and rule.narrow)
