"""What each rank of MPI runs for the section about several processes: prints the seconds of each round as JSON.

mpiexec -n 2 python tests/benchmarks/ranks_run.py 64000000 10
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import xpopt
from xpopt.sharded import Sharded

COMM = MPI.COMM_WORLD


def sharded(elements: int, comm: MPI.Comm, order: str) -> Callable[[], None]:
    """Return a step of which each rank updates its share."""
    opt = Sharded(xpopt.Adam(), comm, order=order)
    _, grads = opt.bind({"W": np.ones(elements, np.float32)})
    grads["W"][...] = 0.5
    return lambda: opt.update_all()


def replicated(elements: int) -> Callable[[], None]:
    """Return a step of which each rank updates all."""
    opt, params, grads = xpopt.Adam(), {"W": np.ones(elements, np.float32)}, {"W": np.full(elements, 0.5, np.float32)}
    total = {"W": np.empty_like(grads["W"])}

    def step() -> None:
        COMM.Allreduce(grads["W"], total["W"])
        total["W"] /= np.float32(COMM.size)
        opt.update_all(params, total, out=params)

    return step


def update(elements: int) -> Callable[[], None]:
    """Return an update alone."""
    opt, params, grads = xpopt.Adam(), {"W": np.ones(elements, np.float32)}, {"W": np.full(elements, 0.5, np.float32)}
    return lambda: opt.update_all(params, grads, out=params)


def seconds(work: Callable[[], None], *, alone: bool = False) -> float:
    """Return what a call takes, until the last rank is done; `alone`, on rank 0 while the others wait."""
    COMM.Barrier()
    start = time.perf_counter()
    if not alone or COMM.rank == 0:
        work()
    return COMM.allreduce(time.perf_counter() - start if not alone or COMM.rank == 0 else 0.0, MPI.MAX)


def main(elements: int, rounds: int) -> None:
    """Let the sides take turns."""
    small = elements // 8
    sides = {
        "sharded": (sharded(elements, COMM, "engine"), False),
        "by rank": (sharded(elements, COMM, "ranks"), False),
        "replicated": (replicated(elements), False),
        "own update": (update(-(-elements // COMM.size)), False),
        "full update": (update(elements), False),
        "small": (sharded(small, COMM, "engine"), False),
        "small, one process": (sharded(small, MPI.COMM_SELF, "engine"), True),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    with xpopt.num_threads(1):
        for number in range(rounds + 1):
            for name, (work, alone) in sides.items():
                spent = seconds(work, alone=alone)
                if number:  # the first is to compile, and to touch memory
                    found[name].append(spent)
    if COMM.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
