"""The pure form under jit, with parameters and slots on several devices: of this process, or of two."""

import os
import re
import sys

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import xpopt

count, rank, folder = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]), sys.argv[1]
jax.config.update("jax_num_cpu_devices", 8 // count)
if count > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    jax.distributed.initialize(where, count, rank, coordinator_bind_address=where)
mesh = jax.make_mesh((8,), ("x",))
values = np.random.default_rng(1).normal(size=(16, 6)).astype(np.float32)
gradient = np.random.default_rng(2).normal(size=(16, 6)).astype(np.float32)
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def put(x, spec):
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), x.__getitem__)


def is_on(x, spec):
    return x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim)


def collectives(step, *args):
    text = step.lower(*args).compile().as_text()
    found = {name: len(re.findall(rf"{name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {name: number for name, number in found.items() if number}


def check_near(x, wanted, ulps=4):
    for shard in x.addressable_shards:
        np.testing.assert_array_max_ulp(np.asarray(shard.data), wanted[shard.index], maxulp=ulps)


def check_same(x, wanted):
    for mine, other in zip(x.addressable_shards, wanted.addressable_shards, strict=True):
        assert np.array_equal(mine.data, other.data)


def check_layout(spec, settings, wanted):
    """Shardings are the same before and after; `wanted` says how many collectives there are."""
    opt, plain = xpopt.Adam(**settings), xpopt.Adam(**settings)
    params, other = {"W": put(values, spec)}, {"W": values}
    pure, compiled = opt.pure(), []
    slots = pure.init(params)
    assert all(is_on(x, spec) for x in slots["W"].values() if x.ndim), slots

    @jax.jit
    def step(params, grads, slots, numbers):
        compiled.append(1)
        return pure.update(params, grads, slots, numbers)

    for k in range(3):
        grads, numbers = {"W": put(gradient * (k + 1), spec)}, pure.numbers()
        if not k:
            assert collectives(step, params, grads, slots, numbers) == wanted, (spec, settings)
        params, slots = step(params, grads, slots, numbers)
        other = plain.update_all(other, {"W": gradient * (k + 1)})
        assert is_on(params["W"], spec)
        assert all(is_on(x, spec) for x in slots["W"].values() if x.ndim)
        check_near(params["W"], other["W"])
    assert len(compiled) == 1
    opt.take(slots)
    return opt, params


for spec in (P("x"), P("x", None), P()):
    check_layout(spec, {"lr_scale": np.linspace(0.5, 2.0, 96).reshape(16, 6), "weight_decay": 0.1}, {})
    check_layout(spec, {"clip_norm": 0.5}, {} if spec == P() else {"all-reduce": 2})  # the largest, the norm
opt, params = check_layout(P("x"), {"nonfinite": "skip"}, {"all-reduce": 1})

# slots cut, parameters whole: each device updates its part, and one all-gather puts them together
pure, params_whole = xpopt.Adam().pure(), {"W": put(values, P())}
slots = jax.tree.map(lambda x: put(np.zeros(x.shape, x.dtype), P("x")), pure.init(params_whole))
layout = {"W": NamedSharding(mesh, P())}, jax.tree.map(lambda x: x.sharding, slots)
step, numbers = jax.jit(pure.update, out_shardings=layout), pure.numbers()
assert collectives(step, params_whole, {"W": put(gradient, P())}, slots, numbers) == {"all-gather": 1}
new, slots = step(params_whole, {"W": put(gradient, P())}, slots, numbers)
check_near(new["W"], xpopt.Adam().update(values, gradient, "W"))
assert slots["W"]["mean"].addressable_shards[0].data.nbytes == values.nbytes // 8

# an element that is not finite on one device: all leave the step out, and the state goes through a file
broken = gradient.copy()
broken[-1, -1] = np.inf
kept = opt.update_all(params, {"W": put(broken, P("x"))})
assert opt.skipped == 1
check_same(kept["W"], params["W"])
path = f"{folder}/{rank}.safetensors"
opt.save(path)
for like in (None, params):
    again = xpopt.Adam(nonfinite="skip")
    again.load(path, like=like)
    new, wanted = (one.update_all(params, {"W": put(gradient, P("x"))})["W"] for one in (again, opt.copy()))
    assert is_on(new, P("x"))
    check_same(new, wanted)
