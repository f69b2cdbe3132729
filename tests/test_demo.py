"""The demo: its gradients are right, by the standard too, and the program does what the README says."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from _kit.backends import NAMESPACES, Backend

from xpopt._arrays.machine import why_not

SCRIPT = Path(__file__).parents[1] / "docs" / "examples" / "train_digits.py"
OPTIMIZERS = ("SGD", "AdaGrad", "RMSProp", "Adam")
SCHEDULES = ("constant", "exponential", "noam", "king", "cosine")


@pytest.fixture(autouse=True)
def _installed():
    for module, distribution in {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "rich": "rich"}.items():
        pytest.importorskip(module, reason=f"the demo needs {distribution}: pip install 'xpopt[demo]'")


@pytest.fixture
def demo():
    """What the program defines, by name."""
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def program(monkeypatch, tmp_path, capsys):
    """Run the program in this process, which spares its imports; what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XPOPT_BACKEND", "")
    monkeypatch.setenv("COLUMNS", "80")

    def program(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return program


@pytest.fixture
def refused(program, capsys):
    """Run the program, which ends with an error; what it says."""

    def refused(*arguments):
        with pytest.raises(SystemExit) as stopped:
            program(*arguments)
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert not out
        return err

    return refused


def test_the_program_trains_with_four_optimizers_and_every_schedule_and_draws(tmp_path, program):
    said = program("--backend", "numpy", "--epochs", "5")
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if "│" in line]
    assert [tuple(row[:2]) for row in rows] == [(name, schedule) for name in OPTIMIZERS for schedule in SCHEDULES]
    for heading in ("optimizer", "schedule", "final loss", "test accuracy", "seconds", "backend"):
        assert heading in said
    _, _, losses, accuracies, seconds, backends = zip(*rows, strict=True)
    assert all(0 < float(loss) < 0.7 for loss in losses)
    assert all(float(accuracy.removesuffix("%")) > 85 for accuracy in accuracies)
    assert max(float(accuracy.removesuffix("%")) for accuracy in accuracies) > 95
    assert all(float(x) >= 0 for x in seconds)
    assert set(backends) == {"numpy"}
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]
    picture = (tmp_path / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 20_000


def test_any_optimizer_trains_by_its_name(tmp_path, program):
    schedule = "warmup(steps=20) >> cosine(steps=24)"
    said = program("--backend", "numpy", "--epochs", "1", "--optimizers", "Lion,NAdam", "--schedule", schedule)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if "│" in line]
    assert [tuple(row[:2]) for row in rows] == [
        (name, schedule) for name in ("Lion", "NAdam") for schedule in (*SCHEDULES, "yours")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["digits.png"]


def test_the_rates_are_those_of_classes_that_there_are(demo):
    for name, settings in demo["OTHERS"].items():
        assert demo["made"](name).lr == settings["lr"]


KILLS = """
import contextlib, os, pathlib, runpy, signal, sys
import sklearn.datasets, sklearn.model_selection, matplotlib.figure, rich.progress, rich.table  # once, for all forks
import xpopt

def curves(figure, output, **kwargs):
    lines = [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines]
    pathlib.Path(output).write_text(repr(lines))

matplotlib.figure.Figure.savefig = curves  # in place of the picture, which is slow to draw

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def kill(owner, name, call, late):
    do, left = getattr(owner, name), call
    def count(*args, **kwargs):
        nonlocal left
        left -= 1
        if not left and not late:
            die()
        result = do(*args, **kwargs)
        if not left:
            die()
        return result
    setattr(owner, name, count)

MOMENTS = {
    "before the first checkpoint": (xpopt.OptimizerBase, "update_all", 30, False),
    "in the middle of an epoch": (xpopt.OptimizerBase, "update_all", 2 * 44 + 17, False),
    "at a checkpoint that is written but has no name": (pathlib.Path, "replace", 4, False),
    "when a run has ended": (pathlib.Path, "replace", 1, True),
    "in the middle of a run": (pathlib.Path, "replace", 2, True),
    "before the file is deleted": (pathlib.Path, "unlink", 1, False),
}

def program(folder, kill_at=None):
    child = os.fork()
    if not child:
        try:
            os.chdir(folder)
            with open("said", "w", encoding="utf-8") as said, contextlib.redirect_stdout(said):
                if kill_at:
                    kill(*kill_at)
                runpy.run_path(sys.argv[0], run_name="__main__")
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

sys.argv = sys.argv[1:]
assert program("alone") == 0
for moment, kill_at in MOMENTS.items():
    assert program("killed", kill_at) == -signal.SIGKILL, moment
    assert os.path.exists("killed/digits.checkpoint") == (moment != "before the first checkpoint"), moment
assert program("killed") == 0
"""


def figures(folder):
    """What the program said, but for the seconds that it took."""
    said = (folder / "said").read_text(encoding="utf-8").splitlines()
    rows = [line.split("│") for line in said if "│" in line]
    return [[cell.strip() for cell in (*row[1:5], *row[6:])] for row in rows], said[-2:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: this system has none")
def test_killed_and_resumed_it_ends_as_if_it_had_been_left_alone(tmp_path):
    """With SIGKILL, at several moments: the same figures, and the same curves to the last bit."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    alone.mkdir()
    killed.mkdir()
    # one thread in the libraries, as what is forked is the one that forks
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    arguments = ["--backend", "numpy", "--epochs", "2", "--save-every", "1", "--optimizers", "SGD,Adam", "--resume"]
    environment = {**os.environ, "XPOPT_BACKEND": "", "COLUMNS": "80", **one}
    command = [sys.executable, "-W", "error", "-c", KILLS, str(SCRIPT), *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(figures(alone)[0]) == 10
    assert figures(killed) == figures(alone)
    assert (killed / "digits.png").read_text() == (alone / "digits.png").read_text()
    assert sorted(path.name for path in killed.iterdir()) == ["digits.png", "said"]


def test_a_checkpoint_of_other_settings_is_refused(tmp_path, demo, refused):
    checkpoint = demo["Checkpoint"](tmp_path / "digits.checkpoint", 1, {"epochs": 3})
    opt = demo["OPTIMIZERS"]["Adam"].copy()
    checkpoint.save(opt, {}, np.random.default_rng(0), losses=[], rates=[], seconds=0.0)
    assert "{'epochs': 3}; give it the same" in refused("--backend", "numpy", "--resume")


def test_cupy_that_cannot_be_used_is_an_error_without_a_traceback(refused):
    if why_not("cupy") is None:
        pytest.skip("CuPy can be used here")
    assert "CuPy is not usable" in refused("--backend", "cupy")


@pytest.mark.parametrize(
    ("arguments", "chosen", "message"),
    [
        (["--backend", "torch"], "", "invalid choice: 'torch'"),
        ([], "torch", "XPOPT_BACKEND='torch'; wanted one of numpy, cupy"),
        (["--epochs", "0"], "", "--epochs of at least 1"),
        (["--optimizers", "Lion,NAdm"], "", "'NAdm' is none of ADOPT, "),
        (["--schedule", "wormup(steps=3)"], "", "unknown schedule 'wormup'; did you mean 'warmup'?"),
        (["--save-every", "0"], "", "--save-every and --epochs of at least 1"),
        (["--seed", "-1"], "", "--seed of at least 0"),
        (["--output", "nowhere/digits.png"], "", "a folder that exists"),
    ],
)
def test_what_cannot_be_is_one_clear_error(arguments, chosen, message, monkeypatch, tmp_path, refused):
    monkeypatch.setenv("XPOPT_BACKEND", chosen)
    assert message in refused(*arguments)
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


@pytest.mark.parametrize("library", ["numpy", "array-api-strict"])
def test_gradients_are_the_slopes_of_the_loss(demo, library):
    namespace = pytest.importorskip(NAMESPACES[library], reason="what is tested is that it follows the standard")
    backend = Backend(library, namespace)
    rng = np.random.default_rng(0)
    start = demo["first_weights"](np, rng)
    values = {name: x.astype(np.float64) + rng.normal(size=x.shape) / 8 for name, x in start.items()}
    x, y = backend.array(rng.uniform(size=(5, 64))), backend.array(np.eye(10)[[3, 1, 4, 1, 5]])

    def loss_and_gradients(values):
        params = {name: backend.array(value) for name, value in values.items()}
        return demo["loss_and_gradients"](backend.xp, params, x, y)

    # A central difference errs as step**2, and by the rounding of the loss over the step.
    step, tolerance = 1e-5, 1e-9
    _, grads = loss_and_gradients(values)
    assert grads.keys() == values.keys()
    for name, value in values.items():
        direction = rng.normal(size=value.shape) / value.size**0.5
        ahead, behind = (loss_and_gradients({**values, name: value + x * direction})[0] for x in (step, -step))
        slope = (float(ahead) - float(behind)) / (2 * step)
        assert np.sum(backend.numpy(grads[name]) * direction) == pytest.approx(slope, rel=tolerance, abs=tolerance)
