"""The benchmark for a GPU where there is none: it goes through all it can, says so, and has no figure."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_on_cpu import COMPILER
from nvrtc import ptx

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

HIDDEN = "import runpy, sys; sys.modules['cupy'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"


def run(folder, *command):
    """Return what it prints; on a machine that has a GPU, it sees none."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(BENCHMARKS), "COLUMNS": "200"}
    arguments = [sys.executable, *command, "--write", "page.md"]
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "No GPU" in done.stdout
    assert not (folder / "page.md").exists()
    assert not re.search(r"\d \[\d|GB/s", done.stdout)  # no median with its quartiles
    return done.stdout


@pytest.mark.backends("numpy")
def test_without_cupy_nothing_is_checked(tmp_path):
    assert "Nothing can be checked here" in run(tmp_path, "-c", HIDDEN, BENCHMARKS / "gpu.py")


@pytest.mark.backends("cupy")
@pytest.mark.skipif(COMPILER is None, reason="g++, which compiles for the processor, is missing")
def test_on_the_stand_in_it_is_gone_through(tmp_path):
    parts = "bits", "streams", "waits", "models", "optimizers", "update", "host", "memory"
    said = run(tmp_path, BENCHMARKS / "gpu.py", "--quick", "--only", *parts)
    assert said.count("without a clock") == 5
    assert said.count("NumPy's bits") == 3
    assert "waits in 10 of 10" in said
    assert said.count("waits in 0 of 10") == 5
    assert "page.md is not written" in said


@pytest.mark.backends("cupy")
def test_the_kernel_that_keeps_a_device_busy_compiles(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    text = ptx(importlib.import_module("gpu_card").SPIN, (), "sm_75")
    assert text.count("%globaltimer") == 2
