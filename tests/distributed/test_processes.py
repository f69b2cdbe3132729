"""The commands that start several processes work on this machine."""

import sys

import pytest
from _kit.launch import mpiexec

pytest.importorskip("mpi4py")


def test_two_ranks_add_up(tmp_path):
    program = "from mpi4py.MPI import COMM_WORLD as c; total = c.allreduce(c.rank + 1); c.rank or print(total, c.size)"
    ended = mpiexec(2, [sys.executable, "-c", program], tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["3", "2"]
