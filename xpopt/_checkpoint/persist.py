"""Arrays of Dask, computed and kept together: parameters, state and counts, in memory or in files of the workers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .._arrays.tree import flatten, rebuild
from .._arrays.typing import Tree
from .._settings.ranges import Range
from .._state.interrupts import WRITING, enter
from .._state.parts import Parts
from .._state.scale import Scale
from .._state.skipped import Skipped
from . import anchor as files
from .anchor import is_deferred

_EVERY = Range(low=1, kind="int")

Anchored = tuple[Path, int]
"""The folder of the anchors of an optimizer, and the step of the last one."""


def persist(
    parts: Parts, params: Tree, anchor: str | os.PathLike[str] | None, every: int, last: Anchored | None
) -> tuple[Any, Anchored | None]:
    """Do what `OptimizerBase.persist` does.

    Parameters
    ----------
    parts : Parts
        The optimizer's.
    params, anchor, every
        As for `OptimizerBase.persist`.
    last : tuple of (Path, int), or None
        The last anchor that this optimizer has written or read.

    Returns
    -------
    params : containers like `params`
    last : tuple of (Path, int), or None
        The last anchor now.
    """
    owner, step = f"{parts.settings.cls.__name__}.persist", parts.clock.cur_step
    every = int(_EVERY.check(owner, "every", every))
    leaves = flatten(params, "params")
    if not any(map(is_deferred, leaves.values())):
        kinds = ", ".join(dict.fromkeys(type(x).__name__ for x in leaves.values())) or "nothing"
        raise TypeError(f"{owner}: params holds {kinds}; wanted Dask arrays; others need no persist")
    slots, skipped, scale = parts.state.arrays(), parts.skipped, parts.scale
    if anchor is not None and _is_due(owner, folder := Path(anchor).absolute(), step, every, last):
        skipped, scale = Skipped(parts.count_skipped()), None if scale is None else scale.read()
        read, last = _persisted(files.write(parts, folder, leaves)), (folder, step)
    else:
        counts = [x for _, _, x in skipped.on_devices]
        kept = _persisted([*leaves.values(), *slots, *counts, *(scale or ())])
        read, others = kept[: len(leaves) + len(slots)], iter(kept[len(leaves) + len(slots) :])
        skipped = skipped._replace(on_devices=tuple((*of[:2], next(others)) for of in skipped.on_devices))
        scale = None if scale is None else Scale(*others)
    state = parts.state.with_arrays(read[len(leaves) :])
    tree = rebuild(params, dict(zip(leaves, read, strict=False)).__getitem__)
    enter(WRITING)
    parts.state, parts.skipped, parts.scale = state, skipped, scale
    return tree, last


def restore(anchor: str | os.PathLike[str], like: Tree) -> tuple[Any, dict[str, Any], Any, Anchored]:
    """Read the last anchor.

    Parameters
    ----------
    anchor, like
        As for `OptimizerBase.restore_anchor`.

    Returns
    -------
    header, arrays
        As `OptimizerBase.state_dict` returns them.
    params : containers like `like`
    anchored : tuple of (Path, int)
        The anchor.
    """
    folder, leaves = Path(anchor).absolute(), flatten(like, "like")
    header, arrays, params, step = files.read(folder, leaves)
    return header, arrays, rebuild(like, params.__getitem__), (folder, step)


def _persisted(values: list[Any]) -> list[Any]:
    """Compute all Dask arrays among some values, in one graph."""
    done = iter(sys.modules["dask"].persist(*filter(is_deferred, values)))
    return [next(done) if is_deferred(x) else x for x in values]


def _is_due(owner: str, folder: Path, step: int, every: int, last: Anchored | None) -> bool:
    """Return whether an anchor is due; raise a ValueError if the folder has anchors of another run."""
    if last is not None and last[0] == folder:
        return not 0 <= step - last[1] < every  # also if the step has gone back
    if found := files.anchors(folder):
        raise ValueError(
            f"{owner}: {folder} has an anchor of step {found[-1].step}, which this optimizer has not written; continue "
            f"from it with restore_anchor, or use an empty folder"
        )
    return step >= every
