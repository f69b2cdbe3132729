"""Which engine updates what, and all of it as one launch: first what can fail, then what writes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .._arrays.library import LOW
from .._graph.reading import graph_of, read_again
from .._graph.rule import Rule
from .._graph.trace import UntraceableError
from .._settings.caller import PACKAGE, warn
from .._settings.text import short
from . import kernels
from .blocked.group import BlockedGroup, BlockedSingle
from .chunked.group import ChunkedGroup
from .compiled import break_even, build
from .compiled.break_even import BreakEven, SmallSteps
from .compiled.group import CompiledGroup, CompiledSingle
from .compiled.kernel import Kernel as CompiledKernel
from .compiled.variants import variant_of
from .cuda.group import CudaGroup, CudaSingle, why_no_kernel
from .eager.group import EagerGroup
from .group import Bound, Group, Launched, Single, StepNumbers
from .host import HostGroup
from .kernel import Variant
from .model import Model, finish
from .tensor import Tensor
from .viewed import ViewedGroup, ViewedSingle

ENGINES = ("auto", "eager", "blocked", "compiled", "cuda")

_choice: ContextVar[str] = ContextVar("xpopt_engine", default="auto")


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Select the engine that runs updates in this context, for tests and debugging.

    Parameters
    ----------
    name : {"auto", "eager", "blocked", "compiled", "cuda"}
        ``"auto"`` takes the fastest that can run each update. Another one takes what it can run, whatever its size;
        ``"compiled"`` leaves what only it cannot run to ``"blocked"``, and the rest goes to ``"eager"``.

    Yields
    ------
    None
        Nothing; use it as ``with xpopt.engine("eager"):``.

    Raises
    ------
    ValueError
        There is no such engine.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {short(name)}; wanted one of {', '.join(ENGINES)}")
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


def chosen() -> str:
    """Return the engine chosen in this context."""
    return _choice.get()


def launch(tensors: list[Tensor]) -> tuple[Launched, Model]:
    """Check and allocate all that updates need; nothing of the caller's or of the state is written.

    Parameters
    ----------
    tensors : list of Tensor
        What is updated in one step, all with `out` or none.

    Returns
    -------
    launched : Launched
        The results, in the order of `tensors`, and what writes them.
    model : Model
        The groups, for the next step.
    """
    engines, small = _assigned(tensors, compile_it=True)
    model = Model(_groups(tensors, engines), small=small)
    bound = _bound(model, tensors)
    if bound is None:
        return _launch_on("eager", tensors, whole=True)
    return _launched(model, bound, tensors), model


def _launch_on(engine: str, tensors: list[Tensor], *, whole: bool) -> tuple[Launched, Model]:
    """Do so wherever arrays lie, on an engine that computes everything before it writes."""
    model = Model(_groups(tensors, [engine] * len(tensors)), whole=whole)
    bound = model.bind(*_arrays(tensors))
    assert bound is not None
    return _launched(model, bound, tensors), model


def _launched(model: Model, bound: list[Bound], tensors: list[Tensor]) -> Launched:
    launched = model.launch(bound, _numbers(model, tensors))
    return Launched(model.each(launched, "results"), model.each(launched, "slots"), finish(launched))


def launch_one(tensor: Tensor) -> tuple[Launched, Single | None]:
    """Check and allocate all that the update of one parameter needs.

    Parameters
    ----------
    tensor : Tensor
        What is updated.

    Returns
    -------
    launched : Launched
        The result, and what writes it.
    single : Single or None
        What can be bound again for the next update, if its engine has that.
    """
    engine = "eager" if refusal(tensor) is not None else _fastest([tensor], compile_it=True)
    kind = _SINGLE.get(engine)
    if engine == "blocked":
        kind = functools.partial(BlockedSingle, small=_small([tensor]))
    kind = _of_library(engine, tensor.library.name, kind, ViewedSingle)
    single = None if kind is None else kind(tensor)
    bound = None if single is None else single.bind(tensor.param, tensor.grad, tensor.out)
    if single is None or bound is None:
        return _launch_on("chunked" if engine == "chunked" else "eager", [tensor], whole=False)[0], None
    assert tensor.h is not None
    param, result = bound
    write = single.launch(param, tensor.grad, result, tensor.h, tensor.key, tensor.proceed)
    return Launched([result], [single.slots], write), single


def _groups(tensors: list[Tensor], engines: list[str]) -> list[Group]:
    """Build the groups: tensors of one engine, rule and kind, all clipped or none, and of one way to be rounded."""
    members: dict[Any, list[int]] = {}
    for i, (tensor, name) in enumerate(zip(tensors, engines, strict=True)):
        which = name, tensor.library.name
        key = which, tensor.rule, _GROUPS[name].kind(tensor), tensor.clipped, tensor.key is not None
        members.setdefault(key, []).append(i)
    groups: list[Group] = []
    for ((name, library), *_), of in members.items():
        kind = _of_library(name, library, _GROUPS[name], ViewedGroup)
        groups.append(kind(of, [tensors[i] for i in of]))
    return groups


def _of_library(engine: str, library: str, kind: Any, viewed: Any) -> Any:
    """Return what makes a group, or a single, of the arrays of a library: of views, on the host's engines."""
    return functools.partial(viewed, kind) if engine in ("blocked", "compiled") and library != "numpy" else kind


def _arrays(tensors: list[Tensor]) -> tuple[list[Any], list[Any], list[Any] | None]:
    """Return params, grads and outs; the latter is the former if all are in place, and None if they are new."""
    params, grads = [tensor.param for tensor in tensors], [tensor.grad for tensor in tensors]
    if tensors[0].out is None:
        return params, grads, None
    outs = [tensor.out for tensor in tensors]
    return params, grads, params if all(x is y for x, y in zip(outs, params, strict=True)) else outs


def _bound(model: Model, tensors: list[Tensor]) -> Any:
    """Bind the arrays of the tensors; None if a result goes where something else is to be read or written."""
    params, grads, outs = _arrays(tensors)
    bound = model.bind(params, grads, outs)
    return None if bound is None or (outs is not None and model.overlaps(bound)) else bound


def _numbers(model: Model, tensors: list[Tensor]) -> StepNumbers:
    """Return the numbers of a step, and tell the groups which of them each tensor has."""
    rows = {id(tensor.h): tensor.h for tensor in tensors}
    row_of = {key: k for k, key in enumerate(rows)}
    model.set_rows([row_of[id(tensor.h)] for tensor in tensors])
    keys = [tensor.key for tensor in tensors]
    scalars: list[Any] = list(rows.values())
    return StepNumbers(scalars, None if all(key is None for key in keys) else keys, tensors[0].proceed)


def describe(tensors: Sequence[Tensor]) -> list[tuple[str, str]]:
    """Return the engine that would update each tensor, and why it is not a faster one, or ""; nothing is compiled."""
    engines, _ = _assigned(tensors, compile_it=False)
    described: dict[int, tuple[str, str]] = {}
    for (name, library, *_), members in _shares(tensors, engines).items():
        reasons: dict[int, str | None] = dict.fromkeys(members)
        if name == "eager":
            reasons = {i: refusal(tensors[i]) for i in members}
        rest = [i for i in members if reasons[i] is None]  # whether there is a faster one depends on all of them
        if rest and name in ("eager", "blocked"):
            reasons |= dict.fromkeys(rest, _why_no_faster(name, library, [tensors[i] for i in rest]))
        described |= {i: (name, reason or "") for i, reason in reasons.items()}
    return [described[i] for i in range(len(tensors))]


def _why_no_faster(name: str, library: str, tensors: list[Tensor]) -> str | None:
    if library == "cupy":
        return why_no_kernel(tensors, compile_it=False)
    if name == "eager":
        return _why_not_drawn(tensors, compile_it=False)
    return _why_not_compiled(tensors, compile_it=False) or "the blocked engine was chosen"


def _shares(tensors: Sequence[Tensor], engines: list[str]) -> dict[tuple[str, str, Rule, bool], list[int]]:
    shares: dict[tuple[str, str, Rule, bool], list[int]] = {}
    for i, (tensor, name) in enumerate(zip(tensors, engines, strict=True)):
        shares.setdefault((name, tensor.library.name, tensor.rule, tensor.clipped), []).append(i)
    return shares


class _OfChunks(ChunkedGroup):
    """Tensors in chunks, of which each is updated by the engine that is chosen for it where it is."""

    launch_chunk = staticmethod(launch_one)


_HOST = ("auto", "blocked", "compiled")
_FUSED = {"numpy": _HOST, "torch": _HOST, "cupy": ("auto", "cuda"), "dask": ("auto",)}
"""The libraries whose updates may be fused, and the choices of an engine that let them."""

_GROUPS: dict[str, type[Group]] = {
    "eager": EagerGroup,
    "blocked": BlockedGroup,
    "compiled": CompiledGroup,
    "cuda": CudaGroup,
    "chunked": _OfChunks,
}
_REFUSE = {"numpy": HostGroup.refuse, "torch": ViewedGroup.refuse, "cupy": CudaGroup.refuse}
_SINGLE: dict[str, Callable[..., Single]] = {"blocked": BlockedSingle, "compiled": CompiledSingle, "cuda": CudaSingle}


def _assigned(tensors: Sequence[Tensor], *, compile_it: bool) -> tuple[list[str], list[SmallSteps]]:
    """Return the fastest engine for each tensor, and what its steps count to, where a kernel is not worth it yet."""
    small: list[SmallSteps] = []
    assigned = ["eager"] * len(tensors)
    together: dict[tuple[str, Rule, bool, bool, bool], list[int]] = {}
    for i, tensor in enumerate(tensors):
        if refusal(tensor) is None:
            key = tensor.library.name, tensor.rule, tensor.clipped, tensor.key is not None, _is_narrow(tensor)
            together.setdefault(key, []).append(i)
    for members in together.values():
        fastest = _fastest([tensors[i] for i in members], compile_it=compile_it)
        for i in members:
            assigned[i] = fastest
        if fastest in ("eager", "blocked") and (counted := _small([tensors[i] for i in members])) is not None:
            small.append(counted)
    return assigned, small


def _small(tensors: list[Tensor]) -> SmallSteps | None:
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


def _fastest(tensors: list[Tensor], *, compile_it: bool) -> str:
    """Return the fastest engine of those that can update these tensors, of one library and rule; none is refused."""
    if tensors[0].library.name == "cupy":
        reason = why_no_kernel(tensors, compile_it=compile_it)
        if reason is None:
            return "cuda"
        _warn_once(_warned, reason, f"{reason}. CuPy arrays are updated eagerly, one array operation at a time")
        return "eager"
    if tensors[0].library.name == "dask":
        return "chunked"
    if tensors[0].key is not None or _is_narrow(tensors[0]):
        return "eager" if _why_not_drawn(tensors, compile_it=compile_it) else "compiled"
    if chosen() == "blocked":
        return "blocked"
    return "compiled" if _why_not_compiled(tensors, compile_it=compile_it) is None else "blocked"


def _why_not_drawn(tensors: Sequence[Tensor], *, compile_it: bool) -> str | None:
    """Return why updates of NumPy arrays that blocks do not take run eagerly, or None if they are compiled."""
    if chosen() == "blocked":
        return f"the blocked engine does not {'convert slots' if tensors[0].key is None else 'round stochastically'}"
    return _why_not_compiled(tensors, compile_it=compile_it)


def _why_not_compiled(tensors: Sequence[Tensor], *, compile_it: bool) -> str | None:
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


def refusal(tensor: Tensor) -> str | None:
    """Return why a tensor has to be updated eagerly, whatever the others are; None if it need not. It warns once."""
    if tensor.as_float:
        return "the result is a float"
    reason = _refusal_of_library(tensor) or _refusal_of_arrays(tensor)
    if reason is None and tensor.clipped and tensor.rule.measured is not None:
        reason = "clip_norm is computed after another option has changed the gradients"
    if reason is None and _is_narrow(tensor) and not _converts(tensor):
        reason = "a slot is of another dtype than the arithmetic"
    if reason is None and tensor.key is not None and not _is_in_c_order(tensor.param):
        reason = "kernels that round stochastically count places in C order"
    return reason or _untraceable(tensor) or _refusal_of_reductions(tensor)


def _is_in_c_order(x: Any) -> bool:
    return bool(x.is_contiguous() if hasattr(x, "is_contiguous") else x.flags.c_contiguous)


def _is_narrow(tensor: Tensor) -> bool:
    """Whether a slot is of another dtype than the arithmetic."""
    if not tensor.rule.narrow:
        return False
    compute = kernels.name_of(tensor.spec.compute)
    return set(tensor.rule.dtypes(compute)) != {compute}


def _converts(tensor: Tensor) -> bool:
    """Whether a kernel reads and writes the slots in their dtypes: half as wide as the arithmetic, or as wide."""
    rule, compute = tensor.rule, kernels.name_of(tensor.spec.compute)
    dtypes = rule.dtypes(compute)
    wide = {dtypes[k] for k in rule.wide} <= ({"float64", "float32"} if compute == "float64" else {*LOW, "float32"})
    return wide and {dtypes[k] for k in rule.ones} <= {compute}


def awaits_arrays(tensor: Tensor) -> bool:
    """Whether an engine that fuses would take a tensor if it came in other arrays, or might."""
    return not tensor.as_float and _refusal_of_library(tensor) is None and _refusal_of_arrays(tensor) is not None


def _refusal_of_library(tensor: Tensor) -> str | None:
    """Return why no engine that fuses takes arrays of this library here, or None if one does."""
    library = tensor.library.name
    if library not in _FUSED:
        return f"no engine fuses updates of {library} arrays"
    if (choice := chosen()) != "auto" and choice not in _FUSED[library]:
        return f"the {choice} engine was chosen"
    return ChunkedGroup.refuse(tensor) if library == "dask" else None


def _refusal_of_arrays(tensor: Tensor) -> str | None:
    """Return why the engines that fuse do not take the arrays of a tensor, or None if they do."""
    return None if tensor.library.name == "dask" else _REFUSE[tensor.library.name](tensor)


def _untraceable(tensor: Tensor) -> str | None:
    """Return why a rule has no graph, and warn of it the first time; or None if it has one."""
    assert tensor.h is not None
    if not tensor.rule.fused:
        return tensor.rule.whole or "its class declares fused = False"
    try:
        graph_of(tensor.rule, tensor.h, clipped=tensor.clipped)
    except UntraceableError as error:
        _warn_once(tensor.rule.made, "warned", f"{error}. It runs eagerly, one array operation at a time")
        return str(error)
    return None


def _refusal_of_reductions(tensor: Tensor) -> str | None:
    """Return why no engine fuses a rule that has a graph, if it reduces whole arrays; None if one does."""
    assert tensor.h is not None
    if not graph_of(tensor.rule, tensor.h, clipped=tensor.clipped).reductions():
        return None
    if tensor.spec.parts == 2 and not _is_in_c_order(tensor.param):
        return (
            "its rule reduces whole arrays, and complex numbers in Fortran order are in neither order as pairs of reals"
        )
    return None


def begin(rule: Rule) -> None:
    """Trace a user's rule again for a new optimizer, and note if it has changed."""
    if str(getattr(rule.function, "__module__", "")).startswith(PACKAGE):
        return
    for one in rule.among:
        begin(one)
        if changed(one):
            rule.made["changed"] = True
    for formula in () if rule.among else (rule, *rule.low.values()):
        if not changed(rule) and not read_again(formula):
            rule.made["changed"] = True


def changed(rule: Rule) -> bool:
    """Whether a rule was not, so that no kernel is right and no plan is kept."""
    return "changed" in rule.made


def _warn_once(warned: dict[Any, Any], cause: str, message: str) -> None:
    here = object()
    if warned.setdefault(cause, here) is here:  # one thread's, of those that come at once
        warn(message)


_warned: dict[Any, Any] = {}
"""Of what there has been a warning, beside rules."""
