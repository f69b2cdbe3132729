"""The kernels of each rule, and why there is none: one cache for all engines, which goes with the rule."""

from __future__ import annotations

import functools
from typing import NamedTuple

from .._arrays.parameter import dtype_text
from .._arrays.typing import Scalars
from .._graph.rule import Rule
from .blocked.kernel import Kernel as BlockedKernel
from .compiled import build
from .compiled.kernel import Kernel as CompiledKernel
from .cuda.kernel import Kernel as CudaKernel


class Variant(NamedTuple):
    """What a kernel is made for, beside its rule."""

    engine: str
    dtype: str  # of the parameters
    clipped: bool = False  # whether the rule sees its gradient clipped
    drawn: bool = False  # whether parameters are rounded stochastically
    guarded: bool = False  # whether it is decided on the device if anything is to change


class Refusal(str):
    """Why a kernel could not be made."""

    __slots__ = ()


name_of = functools.cache(dtype_text)
"""Return the name of a dtype."""


def blocked(rule: Rule, h: Scalars, *, clipped: bool) -> BlockedKernel:
    """Return the kernel of NumPy's functions, of any dtype; raises `UntraceableError` where there is none."""
    found = rule.made.get(_BLOCKED[clipped])
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(_BLOCKED[clipped], BlockedKernel(rule, h, clipped=clipped))
    kernel: BlockedKernel = found
    return kernel


_BLOCKED = Variant("blocked", "", False), Variant("blocked", "", True)


def compiled(rule: Rule, h: Scalars, dtype: str, *, clipped: bool, drawn: bool) -> CompiledKernel | Refusal:
    """Return the kernel that Numba compiles, or why it cannot; the first call compiles it."""
    key = Variant("compiled", dtype, clipped, drawn)
    found: CompiledKernel | Refusal | None = rule.made.get(key)
    if found is None:
        with build.alone():  # threads that come at once wait for one compilation
            if key not in rule.made:
                try:
                    rule.made[key] = CompiledKernel(rule, h, dtype, clipped=clipped, drawn=drawn)
                except Exception as error:  # what Numba cannot compile here, blocks can run
                    rule.made[key] = Refusal(f"Numba cannot compile it: {error}")
            found = rule.made[key]
    assert found is not None
    return found


def cuda(rule: Rule, h: Scalars, dtype: str, *, clipped: bool, drawn: bool, guarded: bool) -> CudaKernel:
    """Return the printed kernel, which a device compiles; raises `UntraceableError` where there is none."""
    key = Variant("cuda", dtype, clipped, drawn, guarded)
    found: CudaKernel | None = rule.made.get(key)
    if found is None:
        kernel = CudaKernel(rule, h, dtype, clipped=clipped, drawn=drawn, guarded=guarded)
        found = rule.made.setdefault(key, kernel)
    assert found is not None
    return found
