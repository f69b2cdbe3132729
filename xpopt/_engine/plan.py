"""Which engine runs what, and all of it as one launch: first everything that can fail, then everything that writes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType, ModuleType

import numpy as np

from .._graph import UntraceableError
from .._memory import writes_cross_reads
from .._rule import Rule
from .._typing import Scalars
from . import blocked, compiled, eager
from .kept import Group
from .kept_blocked import BlockedGroup
from .kept_compiled import CompiledGroup
from .work import Launch, Work

ENGINES = ("auto", "eager", "blocked", "compiled")

_choice: ContextVar[str] = ContextVar("xpopt_engine", default="auto")


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Choose the engine that runs the updates in this context, for tests and debugging.

    Parameters
    ----------
    name : {"auto", "eager", "blocked", "compiled"}
        ``"auto"`` takes the fastest that can run each update. Another one takes what it can run, whatever its size, and
        leaves the rest to ``"eager"``.

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
        raise ValueError(f"engine {name!r}; wanted one of {', '.join(ENGINES)}")
    token = _choice.set(name)
    try:
        yield
    finally:
        _choice.reset(token)


def chosen() -> str:
    """Return the engine chosen in this context."""
    return _choice.get()


def prepare(rule: Rule, works: list[Work]) -> Launch:
    """Check and allocate all that a launch needs; nothing of the caller's or of the state is written.

    Parameters
    ----------
    rule : Rule
        The formula.
    works : list of Work
        The updates of one optimisation step.

    Returns
    -------
    Launch
        The results, in the order of `works`, and what writes them.
    """
    if not works:
        return eager.prepare(rule, works)
    if len(works) == 1:
        (work,) = works
        fits = why_not_fused(rule, work) is None and not _crosses(work)
        return (_fused(rule, works) if fits else eager).prepare(rule, works)
    of_numpy = [work for work in works if work.library.name == "numpy"]
    if _reads_state(of_numpy) or (
        any(work.out is not None for work in of_numpy)
        and writes_cross_reads((work.param, (work.grad, *(work.slots or ())), work.out) for work in of_numpy)
    ):
        return eager.prepare(rule, works)  # which computes everything before it writes anything
    fused: list[int] = []
    others: list[int] = []
    for i, work in enumerate(works):
        (fused if why_not_fused(rule, work) is None else others).append(i)
    if not others:
        return _fused(rule, works).prepare(rule, works)
    launches = [eager.prepare(rule, [works[i] for i in others])]
    if fused:
        picked = [works[i] for i in fused]
        launches.append(_fused(rule, picked).prepare(rule, picked))
    results = dict(zip([*others, *fused], [result for launch in launches for result in launch.results], strict=True))

    def finish() -> None:
        for launch in launches:
            launch.finish()

    return Launch([results[i] for i in range(len(works))], finish)


def _fused(rule: Rule, works: list[Work]) -> ModuleType:
    """Return the faster of the engines that fuse, of those that can run these updates."""
    choice = _choice.get()
    if choice == "blocked" or compiled.why_not(rule, works, chosen=choice == "compiled") is not None:
        return blocked
    return compiled


def group_of(engine: str) -> type[Group] | None:
    """Return how tensors that an engine has updated are kept for the next time, if they are."""
    return {"blocked": BlockedGroup, "compiled": CompiledGroup}.get(engine)


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
    param, grad, out = work.param, work.grad, work.out
    if work.slots is not None:
        bases = param.base, grad.base
        for x in work.slots:
            if x is grad or x is param or x is bases[0] or x is bases[1]:
                return True
    if out is None:
        return False
    read = (grad, *(work.slots or ()), *(() if out is param else (param,)))
    return any(np.may_share_memory(out, x) for x in read)


def why_not_fused(rule: Rule, work: Work) -> str | None:
    """Return why an update cannot run fused on the CPU, or None if it can."""
    if _choice.get() == "eager":
        return "the eager engine was chosen"
    reason = blocked.why_not(work)
    if reason is not None:
        return reason
    return _untraceable(rule, work.h)


def _untraceable(rule: Rule, h: Scalars) -> str | None:
    """Return why a rule has no kernel, and warn of it the first time; or None if it has one."""
    key = rule, h.clip_norm is not None
    if key not in _reasons:
        try:
            blocked.kernel(rule, h, clipped=h.clip_norm is not None)
            _reasons[key] = None
        except UntraceableError as error:
            _reasons[key] = str(error)
            if _reasons.get((rule, h.clip_norm is None)) is None:
                message = f"{error}. It runs eagerly, one array operation at a time"
                warnings.warn(message, UserWarning, stacklevel=_levels_to_caller())
    return _reasons[key]


def _levels_to_caller() -> int:
    """Return the `stacklevel`, seen from the calling function, of the first line that is not this package's."""
    package = str(__package__).partition(".")[0]
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


_reasons: dict[tuple[Rule, bool], str | None] = {}
