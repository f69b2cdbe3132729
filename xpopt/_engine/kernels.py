"""The kernels of each rule, and why there is none: one cache for all engines, which goes with the rule."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from .._arrays.library import real_of
from .._arrays.parameter import dtype_text
from .._arrays.typing import Scalars
from .._graph.rule import Rule
from .compiled import build
from .compiled.kernel import Kernel as CompiledKernel
from .kernel import Kernel, Variant

_Kernel = TypeVar("_Kernel", bound=Kernel)


class Refusal(str):
    """Why a kernel could not be made."""

    __slots__ = ()


@functools.cache
def name_of(dtype: Any) -> str:
    """Return the name of the dtype that a kernel for arrays of a dtype computes: of complex ones, that of the parts."""
    return real_of(dtype_text(dtype))


def made(kind: type[_Kernel], rule: Rule, h: Scalars, variant: Variant) -> _Kernel:
    """Return the kernel of a rule, made at the first call; raises `UntraceableError` where there is none."""
    found: _Kernel | None = rule.made.get(variant)
    if found is None:  # one, whichever thread makes it
        found = rule.made.setdefault(variant, kind(rule, h, variant))
    assert found is not None
    return found


def compiled(rule: Rule, h: Scalars, variant: Variant) -> CompiledKernel | Refusal:
    """Return the kernel in machine code, or why it cannot; the first call compiles it."""
    found: CompiledKernel | Refusal | None = rule.made.get(variant)
    if found is None:
        with build.alone():  # threads that come at once wait for one compilation
            try:
                return made(CompiledKernel, rule, h, variant)
            except Exception as error:  # what cannot be compiled here, blocks can run
                found = rule.made.setdefault(variant, Refusal(f"it cannot be compiled: {error}"))
    assert found is not None
    return found


def loaded(rule: Rule, h: Scalars, variant: Variant) -> bool:
    """Return whether there is a kernel in machine code that needs no compilation, and load it."""
    with build.alone(), build.from_disk():
        try:
            made(CompiledKernel, rule, h, variant)
        except Exception:  # it is not on disk; or what else is wrong is told by `compiled`
            return False
    return True
