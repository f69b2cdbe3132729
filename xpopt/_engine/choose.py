"""Which engine updates what, and all of it as one launch: first what can fail, then what writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from .._graph.reading import read_again
from .._graph.rule import Rule
from .._settings.caller import PACKAGE
from .blocked.group import BlockedGroup, BlockedSingle
from .choice import chosen
from .chunked.group import ChunkedGroup
from .compiled.break_even import SmallSteps
from .compiled.group import CompiledGroup, CompiledSingle
from .cuda.group import CudaGroup, CudaSingle, why_no_kernel
from .eager.group import EagerGroup
from .group import Bound, Group, Launched, Single, StepNumbers
from .model import Model, finish
from .refusals import is_narrow, refusal, warn_once
from .tensor import Tensor
from .viewed import ViewedGroup, ViewedSingle
from .waiting import small_steps, why_not_compiled, why_not_drawn


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
        kind = functools.partial(BlockedSingle, small=small_steps([tensor]))
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
        return why_not_drawn(tensors, compile_it=False)
    return why_not_compiled(tensors, compile_it=False) or "the blocked engine was chosen"


def _shares(tensors: Sequence[Tensor], engines: list[str]) -> dict[tuple[str, str, Rule, bool], list[int]]:
    shares: dict[tuple[str, str, Rule, bool], list[int]] = {}
    for i, (tensor, name) in enumerate(zip(tensors, engines, strict=True)):
        shares.setdefault((name, tensor.library.name, tensor.rule, tensor.clipped), []).append(i)
    return shares


class _OfChunks(ChunkedGroup):
    """Tensors in chunks, of which each is updated by the engine that is chosen for it where it is."""

    launch_chunk = staticmethod(launch_one)


_GROUPS: dict[str, type[Group]] = {
    "eager": EagerGroup,
    "blocked": BlockedGroup,
    "compiled": CompiledGroup,
    "cuda": CudaGroup,
    "chunked": _OfChunks,
}
_SINGLE: dict[str, Callable[..., Single]] = {"blocked": BlockedSingle, "compiled": CompiledSingle, "cuda": CudaSingle}


def _assigned(tensors: Sequence[Tensor], *, compile_it: bool) -> tuple[list[str], list[SmallSteps]]:
    """Return the fastest engine for each tensor, and what its steps count to, where a kernel is not worth it yet."""
    small: list[SmallSteps] = []
    assigned = ["eager"] * len(tensors)
    together: dict[tuple[str, Rule, bool, bool, bool], list[int]] = {}
    for i, tensor in enumerate(tensors):
        if refusal(tensor) is None:
            key = tensor.library.name, tensor.rule, tensor.clipped, tensor.key is not None, is_narrow(tensor)
            together.setdefault(key, []).append(i)
    for members in together.values():
        fastest = _fastest([tensors[i] for i in members], compile_it=compile_it)
        for i in members:
            assigned[i] = fastest
        if fastest in ("eager", "blocked") and (counted := small_steps([tensors[i] for i in members])) is not None:
            small.append(counted)
    return assigned, small


def _fastest(tensors: list[Tensor], *, compile_it: bool) -> str:
    """Return the fastest engine of those that can update these tensors, of one library and rule; none is refused."""
    if tensors[0].library.name == "cupy":
        reason = why_no_kernel(tensors, compile_it=compile_it)
        if reason is None:
            return "cuda"
        warn_once(_warned, reason, f"{reason}. CuPy arrays are updated eagerly, one array operation at a time")
        return "eager"
    if tensors[0].library.name == "dask":
        return "chunked"
    if tensors[0].key is not None or is_narrow(tensors[0]):
        return "eager" if why_not_drawn(tensors, compile_it=compile_it) else "compiled"
    if chosen() == "blocked":
        return "blocked"
    return "compiled" if why_not_compiled(tensors, compile_it=compile_it) is None else "blocked"


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


_warned: dict[Any, Any] = {}
"""Of what there has been a warning, beside rules."""
