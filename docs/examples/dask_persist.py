"""Minimize on the workers of Dask: python docs/examples/dask_persist.py

Parameters and state stay on the workers. Every 10 steps these write them to zarr files,
from which the training goes on if a worker, or this program, is lost.
"""

import tempfile
from pathlib import Path

import dask.array as da
from distributed import Client, LocalCluster

import xpopt

STEPS = 30


def main():
    folder = Path(tempfile.mkdtemp()) / "anchors"  # one that all workers reach
    made = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(host="127.0.0.1", **made) as cluster, Client(cluster):
        target = da.random.default_rng(0).normal(size=1_000_000, chunks=500_000)
        target = target.persist()
        params = {"x": da.zeros_like(target)}
        opt = xpopt.Adam(lr=0.2, nonfinite="skip")
        for step in range(1, STEPS + 1):
            grads = {"x": params["x"] - target}
            params = opt.update_all(params, grads)
            params = opt.persist(params, anchor=folder, every=10)
            if step % 10 == 0:
                distance = abs(params["x"] - target).mean().compute()
                print(f"step {step}: mean distance {distance:.4f}")

        again = xpopt.Adam(nonfinite="skip")  # as another program would
        params = again.restore_anchor(folder, like={"x": target})
        print(f"restored at step {again.cur_step}, in {params['x'].npartitions} chunks")


if __name__ == "__main__":
    main()
