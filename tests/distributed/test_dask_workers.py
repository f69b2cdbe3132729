"""Dask: workers in processes of their own, one of which is killed."""

import json
import sys
from pathlib import Path

import pytest
from _kit.launch import start, wait

pytest.importorskip("distributed")
pytest.importorskip("zarr")

PROGRAM = Path(__file__).with_name("dask_persist.py")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("steps", [24, pytest.param(1000, marks=pytest.mark.long)])
def test_a_scheduler_stays_small_and_a_worker_may_be_lost(tmp_path, steps):
    ended = wait(start([sys.executable, PROGRAM, steps, tmp_path], ROOT, PYTHONPATH=str(ROOT)), timeout=500)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["equal"] == {"W": True, "b": True}
    assert found["skipped"] == 2
    # what the scheduler remembers is what it can compute again: a step has 60 tasks here, for 5 chunks
    assert found["most"] < 60 * (found["every"] + 3)


@pytest.mark.long
def test_the_example_runs(tmp_path):
    program = ROOT / "docs" / "examples" / "dask_persist.py"
    ended = wait(start([sys.executable, program], tmp_path, PYTHONPATH=str(ROOT)), timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "restored at step 30, in 2 chunks"
