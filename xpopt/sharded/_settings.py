"""Settings that must be the same on all ranks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import zip_longest

from .._state.parts import Parts
from ..optimizers.base import OptimizerBase
from ._processes import Processes


def settings_text(opt: OptimizerBase) -> str:
    """Return all settings of an optimizer as text."""
    return f"{type(opt).__name__} {opt._parts.keywords()}"


def check_same(processes: Processes, what: str, lines: Sequence[str]) -> None:
    """Raise a ValueError if another rank has other lines than rank 0.

    Parameters
    ----------
    processes : Processes
        The ranks. All of them must make this call.
    what : str
        What differs then, for the message.
    lines : sequence of str
        The text to compare.
    """
    mine = "\n".join(lines)
    first = processes.broadcast(mine, 0)
    if mine != first:
        pairs = zip_longest(mine.split("\n"), first.split("\n"), fillvalue="nothing")
        here, there = next(pair for pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"Sharded: {what} from those of rank 0: {here}, rank 0 has {there}; make them the same on all ranks"
        )


def trial_of(opt: OptimizerBase) -> OptimizerBase:
    """Return an optimizer on which to try changes of settings: a copy that shares the arrays.

    Parameters
    ----------
    opt : OptimizerBase
        The optimizer. Its next update makes new arrays.

    Returns
    -------
    OptimizerBase
        The copy. It must not be updated.
    """
    trial, parts = object.__new__(type(opt)), opt._parts
    clock = copy.deepcopy(parts.clock, {id(opt): trial})
    parts = Parts(parts.settings, clock, parts.state.snapshot(), parts.skipped, parts.scale)
    trial.__setstate__({**opt._others(), "_parts": parts})
    return trial
