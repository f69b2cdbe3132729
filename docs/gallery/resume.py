"""A training is killed, goes on from its file, and ends in the same bits."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import xpopt


def problem(xp):
    """Return a matrix and a right-hand side: their least squares are the training."""
    rng = np.random.default_rng(0)
    A = xp.asarray(rng.normal(size=(30, 20)))
    return A, A @ xp.asarray(rng.normal(size=20))


def train(folder, steps=200, every=25, kill_at=None):
    """Train, from the file in a folder if there is one; return weights and losses."""
    xp, file = xpopt.default_namespace(), Path(folder, "training.npz")
    (A, b), params, losses = problem(xp), {"w": xp.zeros(20)}, []
    opt = xpopt.Adam(lr=xpopt.schedulers.cosine(0.1, 0.0, steps=steps), decay2=0.99)
    if file.exists():
        with np.load(file) as saved:
            arrays = dict(saved)
        header, losses = json.loads(str(arrays.pop("text")))
        params = {"w": xp.asarray(arrays.pop("parameter w"))}
        opt.load_state_dict({"header": header, "arrays": arrays}, like=params)
    for step in range(opt.cur_step, steps):
        if step == kill_at:
            os.kill(
                os.getpid(), signal.SIGKILL
            )  # nothing of this process runs any more
        error = A @ params["w"] - b
        losses.append(float(error @ error))
        params = opt.update_all(params, {"w": A.T @ error})
        if (step + 1) % every == 0:
            save(file, opt, params, losses)
    return params, losses


def save(file, opt, params, losses):
    """Write all of it to another file, which then takes the place of the old one."""
    state, part = opt.state_dict(), file.with_suffix(".part.npz")
    arrays = {**state["arrays"], "parameter w": params["w"]}
    host = {name: x.get() if hasattr(x, "get") else x for name, x in arrays.items()}
    np.savez(part, text=json.dumps([state["header"], losses]), **host)
    part.replace(file)


def main(kill_at=90):
    """Return the losses: of one run, in the file when it was killed, and resumed."""
    program = Path(__file__).resolve() if "__file__" in globals() else Path("resume.py")
    with (
        tempfile.TemporaryDirectory() as alone,
        tempfile.TemporaryDirectory() as killed,
    ):
        params, losses = train(alone)
        done = subprocess.run(
            [sys.executable, program, killed, str(kill_at)], check=False
        )
        assert done.returncode == -signal.SIGKILL
        with np.load(Path(killed, "training.npz")) as saved:
            kept = json.loads(str(saved["text"]))[1]
        again, resumed = train(killed)
    return losses, kept, resumed, bool((params["w"] == again["w"]).all())


if __name__ == "__main__" and len(sys.argv) == 3:
    train(sys.argv[1], kill_at=int(sys.argv[2]))
elif __name__ == "__main__":
    import matplotlib.pyplot as plt

    losses, kept, resumed, same = main()
    _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    ax.semilogy(losses, color="0.8", linewidth=6, label="without a break")
    ax.semilogy(kept, label="what the file held when it was killed")
    ax.semilogy(range(len(kept), len(resumed)), resumed[len(kept) :], label="resumed")
    ax.axvline(90, color="0.5", linestyle=":")
    ax.set(
        title=f"squared error; the weights have the same bits: {same}", xlabel="step"
    )
    ax.legend(fontsize="small")
    sys.modules.get("sphinx") or plt.show()
