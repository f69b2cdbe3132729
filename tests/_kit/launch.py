"""Processes that work together, on this machine alone: started, waited for, and ended with all that they started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
"""One thread in each, for processes share few processors."""


def start(command: Sequence[object], folder: Path, **more: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that all its processes can be ended together."""
    pipe, environment = subprocess.PIPE, {**os.environ, **QUIET, **more}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for what `start` started; end all of it where it does not end."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"it was still running after {timeout} s:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def mpi_command(ranks: int, command: Sequence[object]) -> list[object]:
    """Return what runs a command on so many ranks of MPI: MPICH's own, of the wheel beside this Python."""
    beside = Path(sys.executable).parent / "mpiexec"
    return [beside if beside.exists() else "mpiexec", "-n", ranks, "-hosts", "127.0.0.1", *command]


def mpiexec(
    ranks: int, command: Sequence[object], folder: Path, timeout: float = 100, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command on so many ranks of MPI."""
    return wait(start(mpi_command(ranks, command), folder, **more), timeout)


def torchrun(
    ranks: int, command: Sequence[object], folder: Path, timeout: float = 100, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a Python program in so many processes of torch, which speak by gloo."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    run += ["--log-dir", folder]  # else each run leaves a folder among the temporary files
    return wait(start([*run, f"--nproc-per-node={ranks}", *command], folder, GLOO_SOCKET_IFNAME="lo", **more), timeout)


def ranks(
    count: int, command: Sequence[object], folder: Path, timeout: float = 100, **more: str
) -> list[subprocess.CompletedProcess[str]]:
    """Run a Python program in so many processes, which find each other as those that torchrun starts do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    more = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo", **more}
    more["WORLD_SIZE"] = str(count)
    started = [start([sys.executable, *command], folder, RANK=str(rank), **more) for rank in range(count)]
    return [wait(one, timeout) for one in started]
