"""The demo: its gradients are right on every array library, and the program does what the README says."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from _kit.table import SIGNATURES

from xpopt._machine import why_not

SCRIPT = Path(__file__).parents[1] / "docs" / "examples" / "train_digits.py"
OPTIMIZERS = [cls.__name__ for cls in SIGNATURES]
SCHEDULES = ("constant", "exponential", "noam", "king")


@pytest.fixture(autouse=True)
def _installed():
    for module, distribution in {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}.items():
        pytest.importorskip(module, reason=f"the demo needs {distribution}: pip install 'xpopt[demo]'")


@pytest.fixture
def demo():
    """What the program defines, by name."""
    return runpy.run_path(str(SCRIPT))


def run(*arguments, folder):
    environment = {**os.environ, "XPOPT_BACKEND": "", "PYTHONIOENCODING": "utf-8", "COLUMNS": "80"}
    command = [sys.executable, "-W", "error", str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=300)


def test_the_program_trains_with_every_optimizer_and_schedule_and_draws(tmp_path):
    done = run("--backend", "numpy", "--epochs", "6", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in done.stdout.splitlines() if "│" in line]
    assert [tuple(row[:2]) for row in rows] == [(name, schedule) for name in OPTIMIZERS for schedule in SCHEDULES]
    for heading in ("optimizer", "schedule", "final loss", "test accuracy", "seconds", "backend"):
        assert heading in done.stdout
    _, _, losses, accuracies, seconds, backends = zip(*rows, strict=True)
    assert all(0 < float(loss) < 0.5 for loss in losses)
    assert all(float(accuracy.removesuffix("%")) > 85 for accuracy in accuracies)
    assert max(float(accuracy.removesuffix("%")) for accuracy in accuracies) > 95
    assert all(float(x) >= 0 for x in seconds)
    assert set(backends) == {"numpy"}
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    picture = (tmp_path / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 20_000


def figures(printed):
    """What the program prints, but for the seconds that it took."""
    rows = [line.split("│") for line in printed.splitlines() if "│" in line]
    return [[cell.strip() for cell in (*row[1:5], *row[6:])] for row in rows], printed.splitlines()[-2:]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_and_resumed_it_ends_as_if_it_had_been_left_alone(tmp_path):
    """At random moments, with SIGKILL: the same figures, and the same picture to the last bit."""
    rng, arguments = np.random.default_rng(3), ["--backend", "numpy", "--epochs", "4", "--save-every", "1"]
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    undisturbed = run(*arguments, folder=alone)
    assert undisturbed.returncode == 0, undisturbed.stderr
    checkpoint, ends = killed / "digits.checkpoint", []
    for _ in range(4):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        command = [sys.executable, str(SCRIPT), *arguments, "--resume"]
        with subprocess.Popen(command, cwd=killed, stdout=subprocess.DEVNULL) as running:
            while running.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.15))
            running.kill()
        ends.append(running.returncode)
    assert ends == [-9] * 4
    resumed = run(*arguments, "--resume", folder=killed)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count(" s\n") < 16  # of the runs, some were over
    assert figures(resumed.stdout) == figures(undisturbed.stdout)
    assert (killed / "digits.png").read_bytes() == (alone / "digits.png").read_bytes()
    assert [path.name for path in killed.iterdir()] == ["digits.png"]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, demo):
    checkpoint = demo["Checkpoint"](tmp_path / "digits.checkpoint", 1, {"epochs": 3})
    opt = demo["OPTIMIZERS"]["Adam"].copy()
    checkpoint.save(opt, {}, np.random.default_rng(0), losses=[], rates=[], seconds=0.0)
    done = run("--backend", "numpy", "--resume", folder=tmp_path)
    assert done.returncode == 2
    assert "{'epochs': 3}; give it the same" in done.stderr


def test_cupy_that_cannot_be_used_is_an_error_without_a_traceback(tmp_path):
    if why_not("cupy") is None:
        pytest.skip("CuPy can be used here")
    done = run("--backend", "cupy", folder=tmp_path)
    assert done.returncode == 2
    assert "CuPy is not usable" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("arguments", "chosen", "message"),
    [
        (["--backend", "torch"], "", "invalid choice: 'torch'"),
        ([], "torch", "XPOPT_BACKEND='torch'; wanted one of numpy, cupy"),
        (["--epochs", "0"], "", "--epochs of at least 1"),
        (["--save-every", "0"], "", "--save-every and --epochs of at least 1"),
        (["--seed", "-1"], "", "--seed of at least 0"),
        (["--output", "nowhere/digits.png"], "", "a folder that exists"),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments, chosen, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPOPT_BACKEND", chosen)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_is_repeated_by_its_seed_and_begins_like_the_others(demo):
    data = demo["load"](np, 0)

    def train(schedule, seed):
        reported = []
        result = demo["train"](np, data, "Adam", schedule, 2, seed, reported.append)
        assert reported == result.losses
        return result

    first, again, other, king = (train(*run) for run in (("noam", 1), ("noam", 1), ("noam", 2), ("king", 1)))
    assert (first.losses, first.rates, first.accuracy) == (again.losses, again.rates, again.accuracy)
    assert first.losses != other.losses
    # In the first epochs King keeps its rate, whatever the loss does, and Noam warms up.
    assert set(king.rates) == {demo["OPTIMIZERS"]["Adam"].hyperparameters["lr"]}
    assert first.rates[1:] == sorted(set(first.rates))


def test_gradients_are_the_slopes_of_the_loss(demo, backend):
    rng = np.random.default_rng(0)
    start = demo["first_weights"](np, rng)
    values = {name: x.astype(np.float64) + rng.normal(size=x.shape) / 8 for name, x in start.items()}
    x, y = backend.array(rng.uniform(size=(5, 64))), backend.array(np.eye(10)[[3, 1, 4, 1, 5]])

    def loss_and_gradients(values):
        params = {name: backend.array(value) for name, value in values.items()}
        return demo["loss_and_gradients"](backend.xp, params, x, y)

    # A central difference errs as step**2, and by the rounding of the loss over the step.
    step, tolerance = (1e-2, 2e-3) if backend.widest == "float32" else (1e-5, 1e-9)
    _, grads = loss_and_gradients(values)
    assert grads.keys() == values.keys()
    for name, value in values.items():
        direction = rng.normal(size=value.shape) / value.size**0.5
        ahead, behind = (loss_and_gradients({**values, name: value + x * direction})[0] for x in (step, -step))
        slope = (float(ahead) - float(behind)) / (2 * step)
        assert np.sum(backend.numpy(grads[name]) * direction) == pytest.approx(slope, rel=tolerance, abs=tolerance)
