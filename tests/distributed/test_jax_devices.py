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


@pytest.mark.long
def test_the_example_runs(tmp_path):
    program = ROOT / "docs" / "examples" / "sharded_jax.py"
    (ended,) = ranks(1, [program], tmp_path, JAX_PLATFORMS="cpu", PYTHONPATH=str(ROOT))
    assert ended.returncode == 0, ended.stderr
    *_, loss, layout = ended.stdout.splitlines()
    assert float(loss.split()[-1]) < 0.05  # the mean square of what is learned is 0.43
    assert layout == "mean of W: P(None, 'x')"
