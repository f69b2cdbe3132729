"""How many CPUs there are for this process: counted, allotted by the system, and left to it by whoever started it."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SHARED = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables of the environment by which joblib, Dask and schedulers of clusters say how many threads a worker has."""


def usable(environ: Mapping[str, str] | None = None) -> int:
    """Return how many threads can work at the same time: the least of what the machine and its settings say.

    Parameters
    ----------
    environ : mapping, optional
        The environment variables; without it, this process's.

    Returns
    -------
    int
        At least 1.
    """
    environ = os.environ if environ is None else environ
    settings = [first_int(environ.get(name, "")) for name in SHARED]
    return int(min(_counted(), _allotted(), *(n for n in settings if n is not None)))


def first_int(text: str) -> int | None:
    """Return the first of a list of ints, ``"4,2"``, if it is at least 1; None for anything else."""
    first = text.partition(",")[0].strip()
    if not first.isdecimal() or len(first) > 9:
        return None
    return int(first) or None


def _counted() -> int:
    """Return how many CPUs this process may run on; it may be moved to others at any time."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@functools.cache
def _allotted() -> float:
    return quota()


def quota(root: str | os.PathLike[str] = "/") -> float:
    """Return how many CPUs' time the control groups of this process allow it, rounded up.

    Parameters
    ----------
    root : path-like
        Where ``proc`` and ``sys`` are found.

    Returns
    -------
    float
        At least 1, and infinity where there is no limit, or no Linux.
    """
    from pathlib import Path  # here, for only large updates ask

    least = math.inf
    with suppress(OSError, ValueError):
        for line in Path(root, "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            for allowed in _limits(Path(root, "sys/fs/cgroup"), controllers, group):
                least = min(least, max(math.ceil(allowed), 1))
    return least


def _limits(mounted: Path, controllers: str, group: str) -> Iterator[float]:
    """Yield the limits of a group and of those above it, as far as they can be seen; in a container, from the top."""
    from pathlib import PurePosixPath

    path = PurePosixPath(group.lstrip("/"))
    for above in (path, *path.parents):
        with suppress(OSError, ValueError, ZeroDivisionError):
            if not controllers:  # version 2
                time, period = (mounted / above / "cpu.max").read_text().split()
            elif "cpu" in controllers.split(","):
                folder = mounted / "cpu" / above
                time, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
            else:
                return
            if int(time) > 0:  # "max" is no int, and -1 is no limit either
                yield int(time) / int(period)
