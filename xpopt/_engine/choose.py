"""Which engine runs what, and all of it as one launch: first everything that can fail, then everything that writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from .._arrays.memory import writes_cross_reads
from .._arrays.typing import Scalars
from .._graph.reading import graph_of, read_again
from .._graph.rule import Rule
from .._graph.trace import UntraceableError
from .._settings.caller import PACKAGE, warn
from .._settings.text import short
from . import eager
from .blocked import kernel as blocked
from .blocked.group import BlockedGroup
from .compiled import kernel as compiled
from .compiled.group import CompiledGroup
from .cuda import kernel as cuda
from .cuda.group import CudaGroup
from .group import Group, Launch, Work

ENGINES = ("auto", "eager", "blocked", "compiled", "cuda")

_choice: ContextVar[str] = ContextVar("xpopt_engine", default="auto")


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Choose the engine that runs the updates in this context, for tests and debugging.

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


def prepare(works: list[Work]) -> Launch:
    """Check and allocate all that a launch needs; nothing of the caller's or of the state is written.

    Parameters
    ----------
    works : list of Work
        The updates of one optimisation step.

    Returns
    -------
    Launch
        The results, in the order of `works`, and what writes them.
    """
    if len(works) == 1:
        (work,) = works
        fits = why_not_fused(work) is None and not _crosses(work)
        return (_fused(work.rule, works) if fits else eager).prepare(work.rule, works)
    later = [work for work in works if work.library.name in _FUSED]  # what is read when it is written
    written = [work.out for work in works if work.library.name not in _FUSED and work.out is not None]
    if _reads_state(later) or (
        (written or any(work.out is not None for work in later))
        and writes_cross_reads(((work.param, (work.grad, *(work.slots or ())), work.out) for work in later), written)
    ):
        return _together(works, [(eager, work.rule) for work in works])  # it computes everything, then writes
    return _together(works, _assigned(works))


def _together(works: list[Work], assigned: list[tuple[ModuleType, Rule]]) -> Launch:
    """Prepare updates on the engines that they are assigned to."""
    shares = _shares(assigned)
    if len(shares) == 1:
        ((fastest, rule),) = shares
        return fastest.prepare(rule, works)
    results: list[Any] = [None] * len(works)
    launches = []
    for (fastest, rule), members in shares.items():
        launch = fastest.prepare(rule, [works[i] for i in members])
        launches.append(launch)
        for i, result in zip(members, launch.results, strict=True):
            results[i] = result

    finishes = iter([launch.finish for launch in launches])

    def finish() -> None:
        for finish_one in finishes:
            finish_one()

    engines = {launch.engine for launch in launches}
    return Launch(results, finish, engines.pop() if len(engines) == 1 else "")


def _shares(assigned: list[tuple[ModuleType, Rule]]) -> dict[tuple[ModuleType, Rule], list[int]]:
    """Return which updates an engine prepares together: those of one rule."""
    shares: dict[tuple[ModuleType, Rule], list[int]] = {}
    for i, share in enumerate(assigned):
        shares.setdefault(share, []).append(i)
    return shares


def _assigned(works: Sequence[Work]) -> list[tuple[ModuleType, Rule]]:
    """Return the fastest engine for each update, and its rule."""
    assigned = [(eager, work.rule) for work in works]
    together: dict[tuple[str, Rule, bool], list[int]] = {}
    for i, work in enumerate(works):
        if why_not_fused(work) is None:
            together.setdefault((work.library.name, work.rule, work.noise is not None), []).append(i)
    for (_, rule, _), members in together.items():
        fastest = _fused(rule, [works[i] for i in members])
        for i in members:
            assigned[i] = fastest, rule
    return assigned


def describe(works: Sequence[Work]) -> list[tuple[str, str]]:
    """Return the engine that runs each update, and why it is not a faster one, or ""."""
    described = [("", "")] * len(works)
    for (module, rule), members in _shares(_assigned(works)).items():
        name = _NAMES[module]
        reasons: list[str | None] = [None] * len(members)
        if module is eager:
            reasons = [why_not_fused(works[i]) for i in members]
            for library, why_not in (("numpy", _why_not_drawn), ("cupy", cuda.why_no_kernel)):
                rest = [k for k, i in enumerate(members) if reasons[k] is None and works[i].library.name == library]
                if rest:  # what has a place in a launch
                    reason = why_not(rule, [works[members[k]] for k in rest])
                    reasons = [reason if k in rest else reasons[k] for k in range(len(members))]
        elif module is blocked:
            reason = compiled.why_not(rule, [works[i] for i in members], chosen=chosen() == "compiled")
            reasons = [reason or "the blocked engine was chosen"] * len(members)
        for i, reason in zip(members, reasons, strict=True):
            described[i] = name, reason or ""
    return described


_NAMES = {eager: "eager", blocked: "blocked", compiled: "compiled", cuda: "cuda"}
"""What each engine is called."""

_FUSED = {"numpy": ("auto", "blocked", "compiled"), "cupy": ("auto", "cuda")}
"""The libraries whose updates may be fused, and the choices of an engine that let them."""


def _fused(rule: Rule, works: Sequence[Work]) -> ModuleType:
    """Return the fastest engine of those that can run these updates, which are of one library."""
    choice = _choice.get()
    if works[0].library.name == "cupy":
        reason = cuda.why_no_kernel(rule, works)
        if reason is None:
            return cuda
        _warn_once(_warned, reason, f"{reason}. CuPy arrays are updated eagerly, one array operation at a time")
        return eager
    chosen = choice == "compiled"
    if works[0].noise is not None:
        return eager if _why_not_drawn(rule, works) else compiled
    if choice == "blocked":
        return blocked
    if len(works) == 1:
        return compiled if compiled.fits(rule, works[0], chosen=chosen) else blocked
    return compiled if compiled.why_not(rule, works, chosen=chosen) is None else blocked


def _why_not_drawn(rule: Rule, works: Sequence[Work]) -> str | None:
    """Return why updates of NumPy arrays that round stochastically run eagerly, or None if they are compiled."""
    if chosen() == "blocked":
        return "blocks do not round stochastically"
    return compiled.why_not(rule, works, chosen=chosen() == "compiled")


def group_of(engine: str) -> type[Group] | None:
    """Return how tensors that an engine has updated are kept for the next time, if they are."""
    return {"blocked": BlockedGroup, "compiled": CompiledGroup, "cuda": CudaGroup}.get(engine)


def _reads_state(works: list[Work]) -> bool:
    """Whether a parameter or gradient is a slot, or a view of one: it would be written while it is still read."""
    slots: set[int] = set()
    for work in works:
        if work.slots is not None:
            slots.update(map(id, work.slots))
            slots.update(id(x.base) for x in work.slots if x.base is not None)
    for work in works:
        param, grad = work.param, work.grad
        if id(grad) in slots or id(grad.base) in slots or id(param) in slots or id(param.base) in slots:
            return True
    return False


def _crosses(work: Work) -> bool:
    """Whether the result or a slot would be written where this update still has to read."""
    _, library, _, param, grad, slots, owned, _, out, _, _ = work
    if slots is not None and not owned:  # slots of its own were never handed out
        bases = param.base, grad.base
        for x in slots:
            if x is grad or x is param or x is bases[0] or x is bases[1]:
                return True
    if out is None:
        return False
    if library.name != "numpy":
        return writes_cross_reads([(param, (grad, *(slots or ())), out)], [])
    read = (grad, *(slots or ()), *(() if out is param else (param,)))
    return any(np.may_share_memory(out, x) for x in read)


def why_not_fused(work: Work) -> str | None:
    """Return why an update has to run eagerly, or None if it need not."""
    rule, of, _, param, _, _, _, h, _, noise, _ = work
    library = of.name
    if library not in _FUSED:
        return f"no engine fuses updates of {library} arrays"
    if (choice := _choice.get()) != "auto" and choice not in _FUSED[library]:
        return f"the {choice} engine was chosen"
    reason = cuda.why_not(work) if library == "cupy" else blocked.why_not(work)
    if reason is None and noise is not None and not param.flags.c_contiguous:
        reason = "kernels that round stochastically count places in C order"
    return reason or _untraceable(rule, h)


def _untraceable(rule: Rule, h: Scalars) -> str | None:
    """Return why a rule has no kernel, and warn of it the first time; or None if it has one."""
    key = "why not traced", h.clip_norm is not None
    try:
        reason: str | None = rule.made[key]
    except KeyError:
        reason = None
        try:
            graph_of(rule, h, clipped=h.clip_norm is not None)
        except UntraceableError as error:
            reason = str(error)
            _warn_once(rule.made, "warned", f"{error}. It runs eagerly, one array operation at a time")
        rule.made[key] = reason
    return reason


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
            for clipped in (False, True):
                formula.made.pop(("why not traced", clipped), None)


def changed(rule: Rule) -> bool:
    """Whether a rule was not, so that no kernel is right and no plan is kept."""
    return "changed" in rule.made


def _warn_once(warned: dict[Any, Any], cause: str, message: str) -> None:
    here = object()
    if warned.setdefault(cause, here) is here:  # one thread's, of those that come at once
        warn(message)


_warned: dict[Any, Any] = {}
"""Of what there has been a warning, beside rules."""
