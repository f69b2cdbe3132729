"""JAX: arrays on eight devices, of one process and of two."""

from pathlib import Path

import pytest
from _kit.launch import ranks

pytest.importorskip("jax")

PROGRAM = Path(__file__).with_name("jax_shardings.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_pure_form_leaves_shardings_as_they_are(tmp_path, processes):
    ended = ranks(processes, [PROGRAM, tmp_path], ROOT, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    assert [one.returncode for one in ended] == [0] * processes, [one.stderr for one in ended]
