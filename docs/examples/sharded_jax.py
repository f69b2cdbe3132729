"""Train on all devices of JAX: python docs/examples/sharded_jax.py

Parameters are cut over the devices, and the state with them. On a CPU, eight devices
stand for those of a larger machine.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import xpopt

STEPS = 100


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["W"])
    return jnp.mean((hidden @ params["v"] - y) ** 2)


def main():
    jax.config.update("jax_num_cpu_devices", 8)  # of other kinds, all there are
    auto = jax.sharding.AxisType.Auto  # XLA decides how products are divided
    mesh = jax.make_mesh((jax.device_count(),), ("x",), axis_types=(auto,))
    columns, rows = NamedSharding(mesh, P(None, "x")), NamedSharding(mesh, P("x"))

    numbers = np.random.default_rng(0)
    params = {
        "W": jax.device_put(numbers.normal(size=(10, 64)).astype("f4"), columns),
        "v": jax.device_put(numbers.normal(size=64).astype("f4") / 8, rows),
    }
    pure = xpopt.AdamW(lr=xpopt.schedulers.cosine(0.02, 0.0, steps=STEPS)).pure()
    slots = pure.init(params)  # in the shardings of the parameters

    def step(params, slots, x, y, numbers):
        value, grads = jax.value_and_grad(loss)(params, x, y)
        return value, *pure.update(params, grads, slots, numbers)

    layout = jax.tree.map(lambda x: x.sharding, (params, slots))
    step = jax.jit(step, donate_argnums=(0, 1), out_shardings=(None, *layout))
    for k in range(1, STEPS + 1):
        x = numbers.normal(size=(256, 10)).astype("f4")
        value, params, slots = step(params, slots, x, np.sin(x[:, 0]), pure.numbers())
        if k % 20 == 0:
            print(f"step {k}: loss {value:.4f}")
    print("mean of W:", slots["W"]["mean"].sharding.spec)


if __name__ == "__main__":
    main()
