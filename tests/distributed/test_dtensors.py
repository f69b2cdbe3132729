"""PyTorch: DTensors and FSDP2 on processes of gloo."""

from pathlib import Path

import pytest
from _kit.launch import ranks, torchrun

pytest.importorskip("torch")

PROGRAM = Path(__file__).with_name("dtensors.py")
ROOT = Path(__file__).resolve().parents[2]


def run(processes, folder, *parts):
    ended = ranks(processes, [PROGRAM, folder, *parts], ROOT, PYTHONPATH=f"{ROOT}:{ROOT / 'tests'}")
    assert [one.returncode for one in ended] == [0] * processes, [one.stderr for one in ended]


def test_two_processes_step_as_one(tmp_path):
    run(2, tmp_path, "every_method", "one_decision", "refusals", "fsdp")


@pytest.mark.long
def test_a_checkpoint_of_two_processes_is_read_by_one_and_by_three(tmp_path):
    run(2, tmp_path, "save")
    for processes in (1, 3):
        run(processes, tmp_path, "load")


@pytest.mark.long
def test_the_example_runs(tmp_path):
    ended = torchrun(2, [ROOT / "docs" / "examples" / "dtensor.py"], tmp_path, PYTHONPATH=str(ROOT))
    assert ended.returncode == 0, ended.stderr
    losses = [float(line.split()[-1]) for line in ended.stdout.splitlines() if line.startswith("step ")]
    assert len(losses) == 5
    assert losses[-1] < 0.1  # the mean square of what is learned is 0.43
