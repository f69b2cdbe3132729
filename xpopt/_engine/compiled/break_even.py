"""When a kernel is worth its compilation: at once for large steps, and for small ones after a number of them.

The seconds that blocks take beyond machine code are estimated for each step and added up. When they reach what a kernel
costs, it is made: so a program loses at most about as much again as if it had known how many steps there would be.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from ..._arrays.typing import Scalars
from ..._graph.passes import Passes, passes_of
from ..._graph.rule import Rule
from ..host import SHARED
from ..kernel import Variant

WORTH = 65_536
"""Elements in one call from which a kernel is compiled at once; one that is there runs everything."""

_CALL, _ELEMENT = 1e-6, 1e-10
"""Seconds that blocks take beyond machine code: for a call of NumPy, and in it for an element."""

_LAUNCH = 3
"""Calls of NumPy that take as long as one of machine code."""

_IMPORT, _LOAD, _COMPILE = 0.05, 0.005, 0.05
"""Seconds that llvmlite takes to import, and a kernel to load from disk, and to compile."""

INEXACT = {"exp", "log", "pow"}
"""The operations of which NumPy and LLVM have functions of their own."""


def is_exact(passes: Passes) -> bool:
    """Return whether blocks make the numbers of machine code, so that it does not matter which of the two runs."""
    graphs = [*(one.parts.arrays for one in passes.before), passes.last.arrays]
    return not any(node.op in INEXACT for of in graphs for node in of.arrays())


class BreakEven:
    """What small steps have lost in blocks, and from when on kernels are worth their cost.

    Parameters
    ----------
    rule : Rule
        The rule.
    h : Scalars
        The numbers of some step.
    variants : tuple of Variant
        The kernels that a step needs.
    """

    def __init__(self, rule: Rule, h: Scalars, variants: tuple[Variant, ...]) -> None:
        passes = passes_of(rule, h, clipped=variants[0].clipped)
        graphs = [*(one.parts.arrays for one in passes.before), passes.last.arrays]
        self._made, self._variants = rule.made, variants
        self._calls = sum(len(graph.arrays()) for graph in graphs)
        self._each_alone = len(graphs) > 1 or bool(rule.ones)
        self._exact = is_exact(passes)
        self._lost = 0.0
        self._cost = self._cost_of(_LOAD) if self._exact else math.inf
        self.may_load = True
        """Whether the kernels have not been looked for on disk."""
        self.is_over = False
        """Whether it has been tried to compile them."""

    @classmethod
    def of(cls, rule: Rule, h: Scalars, variants: tuple[Variant, ...]) -> BreakEven:
        """Return that of the kernels of a rule, made at the first call."""
        key = "break-even", variants
        found: BreakEven | None = rule.made.get(key)
        return rule.made.setdefault(key, cls(rule, h, variants)) if found is None else found

    def _cost_of(self, each: float) -> float:
        return len(self._variants) * each + (0 if "llvmlite" in sys.modules else _IMPORT)

    def of_step(self, sizes: Sequence[int]) -> float:
        """Return the seconds that a step loses, of tensors of these sizes."""
        shared = 0 if self._each_alone else sum(size <= SHARED for size in sizes)
        launches = len(sizes) - shared + bool(shared)
        calls = max(launches * self._calls + shared - _LAUNCH, 0)
        return calls * _CALL + sum(sizes) * self._calls * _ELEMENT

    def add(self, seconds: float) -> None:
        """Count a step."""
        self._lost += seconds
        if self._lost >= self._cost:
            self._made["due", self._variants, self.may_load] = True  # what looks if anything new was made finds this

    def is_due(self) -> bool:
        """Return whether the kernels are to be made, or looked for on disk."""
        return self._lost >= self._cost

    def look_no_more_on_disk(self) -> None:
        """Wait until it pays to compile the kernels."""
        self.may_load, self._cost = False, self._lost + self._cost_of(_COMPILE)

    def end(self) -> None:
        """Wait for nothing: the kernels are there, or cannot be made."""
        self.is_over, self._cost = True, math.inf

    def reason(self, sizes: Sequence[int]) -> str:
        """Return why tensors of these sizes run in blocks, for `explain`."""
        size = sum(sizes)
        if not self._exact:
            return f"{size} elements are fewer than the {WORTH} from which exp, log and powers are compiled"
        few = f"{size} elements are fewer than the {WORTH} that are worth a compilation at once"
        each = self.of_step(sizes)
        if not each:
            return few
        cost = self._cost + (len(self._variants) * _COMPILE if self.may_load else 0)
        steps = max(math.ceil((cost - self._lost) / each), 1)
        return f"{few}; they are compiled after {steps} more steps, or sooner if the kernel is on disk"


class SmallSteps:
    """What counts the small steps of some tensors.

    Parameters
    ----------
    waiting : BreakEven
        Of their kernels.
    sizes : sequence of int
        Of the tensors.
    """

    __slots__ = ("_seconds", "_waiting", "is_due")

    def __init__(self, waiting: BreakEven, sizes: Sequence[int]) -> None:
        self._waiting, self._seconds = waiting, waiting.of_step(sizes)
        self.is_due = waiting.is_due

    def count(self) -> None:
        """Count a step."""
        self._waiting.add(self._seconds)
