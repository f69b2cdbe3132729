"""How large an element of a gradient may be: beyond, what its rule multiplies it to is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays.typing import Scalars
from .._graph.node import Graph
from .._graph.products import products
from .._graph.reading import graph_of
from .._graph.rule import Rule
from .._graph.trace import InPlaceError, UntraceableError
from .._print.host import print_numbers, print_product

LARGEST = {dtype: float(np.finfo(dtype).max) for dtype in ("float32", "float64")}
"""The largest number of each dtype that arithmetic is in."""

_KEPT = 64
"""Answers for different numbers that are kept of a product."""


def limit(rule: Rule, h: Scalars, dtype: str) -> float:
    """Return the largest magnitude of a gradient's element for which what the rule multiplies it to is finite.

    Parameters
    ----------
    rule : Rule
        The formula, which sees gradients that may be clipped. Of one with transforms around it, that inside them.
    h : Scalars
        The numbers of the step.
    dtype : {"float32", "float64"}
        That of the arithmetic.

    Returns
    -------
    float
        A number of `dtype`. Where the rule cannot be traced, what it says itself, or else the largest one; -1 where
        even of 0 nothing finite is made.
    """
    rule = rule.inner or rule
    try:
        graph = graph_of(rule, h, clipped=False)
    except (InPlaceError, UntraceableError):
        return LARGEST[dtype] if rule.most is None else rule.most(LARGEST[dtype])
    found = LARGEST[dtype]
    of_rule: list[_Product] | None = rule.made.get("products")
    if of_rule is None:
        of_rule = rule.made.setdefault("products", [_Product(product) for product in products(graph)])
    for product in of_rule:
        found = min(found, product.limit(h, dtype))
    return found


class _Product:
    def __init__(self, graph: Graph) -> None:
        self._numbers = print_numbers(graph)
        self._product = print_product(graph)
        self._is_scaled = [node.op for node in graph.arrays()] == ["multiply"] and len(graph.scalars()) == 1
        self._found: dict[Any, float] = {}

    def limit(self, h: Scalars, dtype: str) -> float:
        numbers = self._numbers(h)
        if self._is_scaled and abs(numbers[0]) <= 1:  # found without a search, for a rate changes at every step
            return LARGEST[dtype]
        key = dtype, numbers
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= _KEPT:
                self._found.clear()
            return self._found.setdefault(key, self._search(np.dtype(dtype), numbers))

    @np.errstate(all="ignore")
    def _search(self, dtype: Any, numbers: tuple[Any, ...]) -> float:
        """Find it by halves among the bits of all numbers, which are in the order of the numbers themselves."""
        factors = [dtype.type(number) for number in numbers]
        integer = np.dtype(f"int{8 * dtype.itemsize}")

        def number(bits: int) -> Any:
            return integer.type(bits).view(dtype)

        def is_finite(bits: int) -> bool:
            return bool(np.isfinite(self._product(number(bits), *factors)))

        low, high = 0, int(np.finfo(dtype).max.view(integer))
        if is_finite(high):
            return float(number(high))
        if not is_finite(low):
            return -1.0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_finite(middle) else (low, middle)
        return float(number(low))
