"""Whether tensors that blocks could update have a kernel of machine code, or wait for one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._graph.rule import Rule
from . import kernels
from .choice import chosen
from .compiled import break_even, build
from .compiled.break_even import BreakEven, SmallSteps
from .compiled.kernel import Kernel as CompiledKernel
from .compiled.variants import variant_of
from .kernel import Variant
from .tensor import Tensor


def small_steps(tensors: list[Tensor]) -> SmallSteps | None:
    """Return what counts the steps of tensors that are not compiled yet; None where nothing is waited for."""
    if chosen() != "auto" or tensors[0].library.name == "cupy" or build.why_not_here() is not None:
        return None
    sizes = _sizes(tensors)
    if sum(sizes) >= break_even.WORTH:
        return None
    waiting = BreakEven.of(tensors[0].rule, tensors[0].h, _missing(tensors))
    return None if waiting.is_over else SmallSteps(waiting, sizes)


def _sizes(tensors: Sequence[Tensor]) -> list[int]:
    return [math.prod(tensor.spec.shape) * tensor.spec.parts for tensor in tensors]


def _missing(tensors: Sequence[Tensor]) -> tuple[Variant, ...]:
    """Return the kernels in machine code that tensors of one rule lack."""
    first = tensors[0]
    missing = []
    for variant in dict.fromkeys(map(variant_of, tensors)):
        made = first.rule.made.get(variant)
        # where it matters which of the two runs, that is for the size to say, not for what has been compiled before
        if not isinstance(made, CompiledKernel) or not made.exact:
            missing.append(variant)
    return tuple(missing)


def why_not_drawn(tensors: Sequence[Tensor], *, compile_it: bool) -> str | None:
    """Return why updates of NumPy arrays that blocks do not take run eagerly, or None if they are compiled."""
    if chosen() == "blocked":
        return f"the blocked engine does not {'convert slots' if tensors[0].key is None else 'round stochastically'}"
    return why_not_compiled(tensors, compile_it=compile_it)


def why_not_compiled(tensors: Sequence[Tensor], *, compile_it: bool) -> str | None:
    """Return why tensors that could be updated in blocks cannot be by machine code, or None if they can, or may.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of one rule; all round stochastically, or none.
    compile_it : bool
        Whether missing kernels are compiled to find out.

    Returns
    -------
    str or None
        The reason.
    """
    rule, h, missing, sizes = tensors[0].rule, tensors[0].h, _missing(tensors), _sizes(tensors)
    if not missing:
        return None
    reason, waiting = build.why_not_here(), None
    if reason is None and sum(sizes) < break_even.WORTH and chosen() != "compiled":
        waiting = BreakEven.of(rule, h, missing)
        if not _is_worth(waiting, rule, h, missing, compile_it=compile_it):
            return waiting.reason(sizes)
        missing = _missing(tensors)
    reason = reason or build.why_no_compiler()
    if reason is None and (any(of.dtype == "float16" for of in missing) or "float16" in rule.dtypes("")):
        reason = build.why_no_float16()
    for variant in missing if reason is None else ():
        made = rule.made.get(variant)
        if made is None and compile_it:
            made = kernels.compiled(rule, h, variant)
        if isinstance(made, kernels.Refusal):
            reason = reason or str(made)
    if waiting is not None and compile_it:
        waiting.end()
    return reason


def _is_worth(waiting: BreakEven, rule: Rule, h: Any, missing: Sequence[Variant], *, compile_it: bool) -> bool:
    """Return whether small steps have paid for their kernels, or these are on disk, and the steps for loading them."""
    if waiting.is_over or not waiting.is_due():
        return waiting.is_over
    if waiting.may_load and compile_it:
        if build.why_no_compiler() is None and all(kernels.loaded(rule, h, variant) for variant in missing):
            return True
        waiting.look_no_more_on_disk()
    return not waiting.may_load and waiting.is_due()
