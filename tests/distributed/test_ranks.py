"""Sharded over MPI and over process groups of PyTorch, in processes of their own."""

import importlib.util
import sys
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


@pytest.mark.parametrize("library", ["mpi", pytest.param("torch", marks=pytest.mark.long)])
def test_what_one_rank_raises_ends_all(library, tmp_path):
    pytest.importorskip(NEEDS[library])
    ended = run(library, 2, "fail", tmp_path, timeout=60)  # a rank that waited would never end
    assert ended.returncode != 0
    assert "OSError: rank 1: no such batch" in ended.stderr


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


KILLED = [
    *(("mpi", phase) for phase in ("reduce", "decide", "write", "share", "file", "index")),
    *(("torch", phase) for phase in ("reduce", "write", "index")),  # a start takes ten times as long there
]


@pytest.mark.long
@pytest.mark.parametrize(("library", "phase"), KILLED)
def test_a_killed_rank_ends_all_and_the_last_checkpoint_loads(library, phase, tmp_path):
    pytest.importorskip(NEEDS[library])
    ranks = 4 if library == "mpi" else 2  # powers of two: the mean of equal gradients is exact
    runs(library, ranks, "save", tmp_path)
    before = {path.name for path in tmp_path.glob("*.safetensors")}
    ended = run(library, ranks, "kill", tmp_path, phase, timeout=60)
    assert ended.returncode != 0
    assert "killing" in ended.stdout
    assert "not killed" not in ended.stdout
    assert before <= {path.name for path in tmp_path.glob("*.safetensors")}
    runs(library, 2, "load", tmp_path)


@pytest.mark.parametrize("library", NEEDS)
def test_the_examples_run(library, tmp_path):
    pytest.importorskip(NEEDS[library])
    program = Path(__file__).parents[2] / "docs" / "examples" / f"sharded_{library}.py"
    if library == "torch":
        ended = torchrun(2, [program], tmp_path)
    else:
        ended = mpiexec(2, [sys.executable, "-m", "mpi4py", program], tmp_path)
    assert ended.returncode == 0, ended.stderr
    losses = [float(line.split()[-1]) for line in ended.stdout.splitlines() if line.startswith("step ")]
    assert len(losses) == 5
    assert losses[-1] < 0.1  # the mean square of what is learned is 0.43
