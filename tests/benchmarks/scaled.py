"""Arrays on several devices and processes: steps of JAX, DTensors and Dask, each beside another way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from measuring import spread
from report import Begin, Section, at_least, at_most

TITLE = "Arrays of several devices and processes"

TEXT = """\
Adam in float32, all on this machine. JAX: 100 tensors of 1000 elements, cut over 8 devices of one process, a jitted
step of the pure form beside one of optax. DTensors: 64 tensors cut over 2 processes of gloo, in place, beside the same
parts as NumPy arrays, which agree on nothing; where tensors are small, the step is the wait for the other process.
Dask: one tensor of {elements:,} elements in 8 chunks on 2 workers, with `persist` at each step, one task for a chunk
beside one for each operation. The ratio is the median of that of neighbouring blocks."""

LOOPBACK = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "JAX_PLATFORMS": "cpu"}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]


def count() -> int:
    """Return how many races there are."""
    return 4


def section(elements: int, rounds: int, begin: Begin) -> Section:
    """Measure each library that is there."""
    found = Section(TITLE, TEXT.format(elements=elements), ["what", "ms", "beside", "ms", "ratio"])
    cases = [
        ("JAX, 100 x 1000", [], ["jax", 1000], "pure", "optax"),
        ("DTensors, 64 x 16,000", TORCHRUN, ["dtensors", 16_000], "DTensors", "NumPy"),
        ("DTensors, 64 x 1,000,000", TORCHRUN, ["dtensors", 1_000_000], "DTensors", "NumPy"),
        (f"Dask, {elements:,}", [], ["dask", elements], "chunks", "operations"),
    ]
    for what, start, arguments, mine, other in cases:
        begin(what)
        times = _run([*start, Path(__file__).with_name("scaled_run.py"), *arguments, rounds])
        if times is None:
            found.rows.append([what, "not measured: a library is not installed", "", "", ""])
            continue
        here, there = (np.array(times[name]) for name in (mine, other))
        row = [what, spread(1e3 * here, 1), other, spread(1e3 * there, 1), spread(here / there, 2)]
        found.rows.append(row)
        if what.startswith("Dask"):
            found.goals.append(at_least(what, 3.0, there / here, "one task for each operation"))
        else:
            found.goals.append(at_most(what, 1.3 if what.startswith("JAX") else 2.0, here / there, f"x {other}"))
    return found


def _run(command: list[object]) -> dict[str, list[float]] | None:
    """Return the seconds of each block; None where a library is missing."""
    ended = subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, **LOOPBACK},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ModuleNotFoundError" in ended.stderr:
        return None
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"{command} failed:\n{ended.stdout}\n{ended.stderr}")
    times: dict[str, list[float]] = json.loads(lines[0])
    return times
