"""Steps on two workers, with anchors; one of the workers is killed. Prints what came of it."""

import json
import os
import signal
import sys
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, futures_of, wait

import xpopt

STEPS, FOLDER = int(sys.argv[1]), Path(sys.argv[2])
EVERY = 8 if STEPS < 100 else 50
BROKEN = {3, STEPS - 2}


def gradients(params, k):
    """Return gradients, of which one chunk holds an infinity in some steps."""
    lib = da if isinstance(params["W"], da.Array) else np
    W = 2 * params["W"]
    if k in BROKEN:
        W = lib.where(lib.arange(W.size, **({"chunks": 250} if lib is da else {})) == 999, np.float32(np.inf), W)
    return {"W": W, "b": params["b"] + np.float32(1)}


def main():
    made = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": "2GiB"}
    with LocalCluster(host="127.0.0.1", protocol="tcp", **made) as cluster, Client(cluster) as client:
        values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
        opt, plain = (xpopt.Adam(lr=0.01, nonfinite="skip") for _ in range(2))
        params = {"W": da.from_array(values, chunks=250), "b": da.zeros(8, dtype="f4")}
        other = {"W": values, "b": np.zeros(8, np.float32)}
        most = 0
        for k in range(STEPS):
            if k == STEPS * 3 // 4 + EVERY // 2:
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            params = opt.persist(opt.update_all(params, gradients(params, k)), anchor=FOLDER / "anchor", every=EVERY)
            wait(futures_of(params))
            most = max(most, len(cluster.scheduler.tasks))
            other = plain.update_all(other, gradients(other, k))
            plain.cache = {name: {**entry, "t": k + 1} for name, entry in plain.cache.items()}  # skipped steps count
        (found,) = dask.compute(params)
        restored = xpopt.Adam(nonfinite="skip")
        like = {"W": da.zeros(1000, chunks=500, dtype="f4"), "b": other["b"]}
        back = restored.restore_anchor(FOLDER / "anchor", like)
        assert restored.cur_step % EVERY == 0, restored.cur_step
        assert restored.cur_step > STEPS - EVERY
        assert [x.chunks for x in (back["W"], restored.cache["W"]["mean"])] == [((500, 500),)] * 2
        equal = {name: bool(np.array_equal(found[name], other[name])) for name in other}
        print(json.dumps({"equal": equal, "skipped": opt.skipped, "most": most, "every": EVERY}))


if __name__ == "__main__":
    main()
