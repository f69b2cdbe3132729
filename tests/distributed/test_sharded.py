"""Sharded over MPI and over process groups of PyTorch, in processes of their own."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest
from _kit.launch import mpiexec, torchrun

PROGRAM = Path(__file__).with_name("ranks.py")
NEEDS = {"mpi": "mpi4py", "torch": "torch"}
each = pytest.mark.parametrize(
    "library",
    [
        pytest.param(name, marks=pytest.mark.skipif(importlib.util.find_spec(needed) is None, reason=f"no {needed}"))
        for name, needed in NEEDS.items()
    ],
)


def run(library, ranks, task, folder, *argument, timeout=100):
    if library == "mpi":  # mpi4py's own runner ends all ranks where one raises
        return mpiexec(
            ranks, [sys.executable, "-m", "mpi4py", PROGRAM, "mpi", task, folder, *argument], folder, timeout
        )
    return torchrun(ranks, [PROGRAM, "torch", task, folder, *argument], folder, timeout)


def runs(*given, **more):
    ended = run(*given, **more)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"


@each
def test_two_ranks_do_what_one_process_does(library, tmp_path):
    runs(library, 2, "short", tmp_path)


@pytest.mark.skipif("not importlib.util.find_spec('mpi4py')")
def test_two_ranks_are_read_by_three(tmp_path):
    runs("mpi", 2, "save", tmp_path)
    runs("mpi", 3, "load", tmp_path)


@each
def test_what_one_rank_raises_ends_all(library, tmp_path):
    start = time.monotonic()
    ended = run(library, 2, "fail", tmp_path, timeout=60)
    assert ended.returncode != 0
    assert "OSError: rank 1: no such batch" in ended.stderr
    assert time.monotonic() - start < 30  # most of which goes to imports; a rank that waited would never end


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 4])
@each
def test_every_dtype_and_option(library, ranks, tmp_path):
    runs(library, ranks, "grid", tmp_path, timeout=400)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@each
def test_four_ranks_are_read_by_any_number(library, ranks, tmp_path):
    runs(library, 4, "save", tmp_path)
    runs(library, ranks, "load", tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("phase", ["reduce", "decide", "write", "share", "file", "index"])
@each
def test_a_killed_rank_ends_all_and_the_last_checkpoint_loads(library, phase, tmp_path):
    runs(library, 4, "save", tmp_path)
    before = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    ended = run(library, 4, "kill", tmp_path, phase, timeout=60)
    assert ended.returncode != 0
    assert "killing" in ended.stdout
    assert "not killed" not in ended.stdout
    assert set(before) <= {path.name for path in tmp_path.glob("*.safetensors")}
    runs(library, 2, "load", tmp_path)
