"""Several processes over MPI: a step of which each updates its share, beside one that all make whole."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from measuring import spread
from report import Begin, Section, at_least, at_most

RANKS = (2, 4)
COMPUTE = 0.5  # seconds of forward and backward pass beside which a step is set, for the efficiency
LOOPBACK = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

TITLE = "Beyond one machine"

TEXT = """\
Adam on {elements:,} elements with `xpopt.sharded.Sharded` over MPI (MPICH), all ranks on this machine, each with one
thread; the network is the machine's memory. A step adds up the gradients of all ranks, updates, and sends the new
parameters; beside it, an all-reduce after which each rank updates all. Shares of an update are measured alone. The
efficiency is what the step costs of a pass of {compute} s on {small:,} elements, from one process to several:
(c + s1) / (c + sN), where c is the pass and s the step. With more ranks than processors, ranks wait for each other.
There were {rounds} rounds, of turns of all sides, and as they began a load of {load:.0f} by other processes."""


def section(elements: int, rounds: int, begin: Begin) -> Section:
    """Measure each number of ranks."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    text = TEXT.format(elements=elements, small=elements // 8, compute=COMPUTE, rounds=rounds, load=load)
    found = Section(TITLE, text, ["ranks", "what", "ms", "beside, ms", "ratio"])
    if importlib.util.find_spec("mpi4py") is None:
        found.rows.append(["2", "not measured: mpi4py is not installed", "", "", ""])
        return found
    for ranks in RANKS:
        begin(f"{ranks} ranks")
        times = {name: np.array(values) for name, values in _run(ranks, elements, rounds).items()}
        pairs = {
            "sharded step, replicated": ("sharded", "replicated"),
            'order="ranks", replicated': ("by rank", "replicated"),
            "own share of an update, all": ("own update", "full update"),
        }
        for what, (mine, other) in pairs.items():
            ms = [spread(1e3 * times[name], 0) for name in (mine, other)]
            found.rows.append([str(ranks), what, *ms, spread(times[mine] / times[other], 2)])
        one, many = times["small, one process"], times["small"]
        efficiency = (COMPUTE + one) / (COMPUTE + many)
        ms = [spread(1e3 * many, 0), spread(1e3 * one, 0)]
        found.rows.append([str(ranks), "step, step of one process; efficiency", *ms, spread(efficiency, 3)])
        if ranks == 2:
            found.goals += [
                at_most("2 ranks, sharded step", 0.85, times["sharded"] / times["replicated"], "x replicated"),
                at_most("2 ranks, own update", 0.55, times["own update"] / times["full update"], "x all"),
                at_least("2 ranks, efficiency", 0.95, efficiency, "one process"),
            ]
    return found


def _run(ranks: int, elements: int, rounds: int) -> dict[str, list[float]]:
    program, beside = Path(__file__).with_name("ranks_run.py"), Path(sys.executable).with_name("mpiexec")
    command = [beside if beside.exists() else "mpiexec", "-n", ranks, sys.executable, program, elements, rounds]
    ended = subprocess.run(
        list(map(str, command)), env={**os.environ, **LOOPBACK}, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise RuntimeError(f"{ranks} ranks failed:\n{ended.stdout}\n{ended.stderr}")
    return json.loads(ended.stdout.splitlines()[-1])
