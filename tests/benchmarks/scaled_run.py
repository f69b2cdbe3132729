"""Steps on several devices and processes, each beside another way; prints the seconds of each block as JSON.

``python scaled_run.py jax | dtensors | dask [elements] [rounds]``, the second started by torchrun.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

ENGINES = {"chunks": "auto", "operations": "eager"}


def race(sides: Mapping[str, Callable[[], Any]], rounds: int, calls: int) -> dict[str, list[float]]:
    """Return seconds a call, of blocks that alternate; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(rounds + 1):
        for name in sorted(sides, reverse=k % 2 == 1):
            start = time.perf_counter()
            for _ in range(calls):
                sides[name]()
            if k:
                found[name].append((time.perf_counter() - start) / calls)
    return found


def jax_steps(elements: int, rounds: int) -> dict[str, list[float]]:
    """Make steps of 100 tensors cut over 8 devices under jit: of the pure form, and of optax."""
    import jax
    import optax
    from jax.sharding import NamedSharding, PartitionSpec

    import xpopt

    jax.config.update("jax_num_cpu_devices", 8)
    where = NamedSharding(jax.make_mesh((8,), ("x",)), PartitionSpec("x"))
    params = {k: jax.device_put(np.ones(elements, np.float32), where) for k in range(100)}
    grads = {k: jax.device_put(np.full(elements, 0.3, np.float32), where) for k in params}
    pure, other = xpopt.Adam(lr=0.01).pure(), optax.adam(0.01)
    step = jax.jit(pure.update, donate_argnums=(0, 2))

    def updated(params: Any, grads: Any, state: Any) -> Any:
        updates, state = other.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    others = jax.jit(updated, donate_argnums=(0, 2))
    held = {"pure": [jax.tree.map(jax.numpy.copy, params), pure.init(params)], "optax": [params, other.init(params)]}

    def make(name: str) -> None:
        mine, state = held[name]
        held[name][:] = step(mine, grads, state, pure.numbers()) if name == "pure" else others(mine, grads, state)
        jax.block_until_ready(held[name])

    return race({name: lambda name=name: make(name) for name in held}, rounds, 20)


def dtensor_steps(elements: int, rounds: int) -> dict[str, list[float]]:
    """Make steps of 64 DTensors in place, and of the same parts as NumPy arrays."""
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    import xpopt
    from xpopt.sharded import DTensors

    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    wholes = {k: torch.ones(elements) for k in range(64)}
    params = {k: distribute_tensor(x, mesh, [Shard(0)]) for k, x in wholes.items()}
    grads = {k: distribute_tensor(0.3 * x, mesh, [Shard(0)]) for k, x in wholes.items()}
    parts = {k: x.to_local().numpy().copy() for k, x in params.items()}
    own = {k: x.to_local().numpy().copy() for k, x in grads.items()}
    opt, plain = DTensors(xpopt.Adam(), params), xpopt.Adam()
    found = race(
        {
            "DTensors": lambda: opt.update_all(params, grads, out=params),
            "NumPy": lambda: plain.update_all(parts, own, out=parts),
        },
        rounds,
        20,
    )
    distributed.destroy_process_group()
    return found


def dask_steps(elements: int, rounds: int) -> dict[str, list[float]]:
    """Make steps on two workers: one task for a chunk, and one for each operation."""
    import dask.array as da
    from distributed import Client, LocalCluster, futures_of, wait

    import xpopt

    made = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(host="127.0.0.1", protocol="tcp", **made) as cluster, Client(cluster):
        held = {}
        for name in ENGINES:
            x = da.ones(elements, chunks=elements // 8, dtype="float32").persist()
            held[name] = xpopt.Adam(), {"W": x}

        def make(name: str) -> None:
            opt, params = held[name]
            with xpopt.engine(ENGINES[name]):
                params = opt.persist(opt.update_all(params, {"W": 2 * params["W"]}))
            wait(futures_of(params))
            held[name] = opt, params

        return race({name: lambda name=name: make(name) for name in held}, rounds, 1)


if __name__ == "__main__":
    kind, *numbers = sys.argv[1:]
    steps, size = {"jax": (jax_steps, 1000), "dtensors": (dtensor_steps, 16_000), "dask": (dask_steps, 2**24)}[kind]
    elements, rounds = [*map(int, numbers), *(size, 9)[len(numbers) :]]
    print(json.dumps(steps(elements, rounds)))
