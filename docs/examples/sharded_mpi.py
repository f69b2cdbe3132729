"""Train a model on several processes of MPI, each with its own data: mpiexec -n 2 python docs/examples/sharded_mpi.py

A checkpoint is written at every tenth step. Start it again, on any number of processes, and it goes on from there.
"""

from pathlib import Path

import numpy as np
from mpi4py import MPI

import xpopt
from xpopt.sharded import Sharded

STEPS, FOLDER = 50, Path("sharded_checkpoints")
comm = MPI.COMM_WORLD


def loss_of(params, grads, x, y):
    """Write the gradients of a network with one hidden layer; return its loss."""
    hidden = np.tanh(x @ params["W"] + params["b"])
    error = hidden @ params["v"] - y
    slope = np.outer(error, params["v"]) * (1 - hidden**2)
    np.matmul(hidden.T, error / len(y), out=grads["v"])
    np.matmul(x.T, slope / len(y), out=grads["W"])
    np.mean(slope, axis=0, out=grads["b"])
    return 0.5 * np.mean(error**2)


def main():
    rng = np.random.default_rng(0)  # rank 0's numbers are what all begin with
    shapes = {"W": (20, 64), "b": 64, "v": 64}
    start = {k: rng.normal(0, 0.3, n).astype(np.float32) for k, n in shapes.items()}
    opt = Sharded(xpopt.AdamW(lr=0.01, clip_global=1.0, nonfinite="skip"), comm)
    params, grads = opt.bind(start)
    complete = sorted(FOLDER.glob("*/index.json"))  # what is written last
    if complete:
        opt.load(complete[-1].parent)
        with np.load(complete[-1].with_name("params.npz")) as file:
            for name, x in params.items():
                x[...] = file[name]

    while opt.cur_step < STEPS:
        data = np.random.default_rng([opt.cur_step, comm.rank])  # of this rank alone
        with opt.shared_errors():
            x = data.normal(0, 1, (256, 20)).astype(np.float32)
            loss = loss_of(params, grads, x, np.sin(x[:, 0]))
        opt.update_all(loss)
        if opt.cur_step % 10 == 0:
            folder = FOLDER / f"{opt.cur_step:06d}"
            if comm.rank == 0:
                folder.mkdir(parents=True, exist_ok=True)
                np.savez(folder / "params.npz", **params)
            opt.save(folder)
            if comm.rank == 0:
                print(f"step {opt.cur_step}: loss {loss:.4f}", flush=True)


if __name__ == "__main__":
    main()
