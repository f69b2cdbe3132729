"""Small tensors that go through all passes of a rule at once: the bits of those that do not, and of eager updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.bits import compare, normal, same_bits, special
from _kit.engines import of_rule

import xpopt

pytestmark = pytest.mark.backends("numpy")
compiled = pytest.mark.llvmlite

LARGEST = {"float16": 16_384, "float32": 16_384, "float64": 8_192}
"""The number of elements up to which a tensor of `Chain` or LAMB is whole."""


class Chain(NamedTuple):
    mean: Any
    size: Any = xpopt.slot(start=0.5, shape=xpopt.one)


def chained(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Read in the last pass what both passes before it have reduced, with numbers of the tensor and truth values."""
    size = 0.9 * s.size + 0.1 * xp.linalg.vector_norm(grad * grad)
    mean = 0.9 * s.mean + grad / (size + 0.1) + xp.mean(param)
    step = xp.where((xp.max(mean) > xp.abs(xp.min(mean))) | (size == 0), mean - xp.sum(mean), 0.5 * mean)
    return param - h.lr * step * grad * grad, Chain(mean, size)


CHAINED = of_rule(chained, Chain)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("dtype", LARGEST)
@pytest.mark.parametrize("make", [CHAINED, xpopt.LAMB], ids=["chained", "LAMB"])
def test_bits_are_eager_numpys_on_both_sides_of_every_boundary(backend, make, dtype):
    sizes = (0, 1, 7, 255, 256, 257, 4095, 4096, 4097, 8192, 8193, 12_289, 16_384, 16_385)
    compare(make, [(), *((size,) for size in sizes)], dtype, 2)
    compare(make, [(), (0,), (3,), (257,), (4097,)], dtype, 2, special)
    compare(make, [(), (3,), (4097,)], dtype, 2, lambda rng, shape: np.zeros(shape))


@compiled
@pytest.mark.parametrize("dtype", LARGEST)
def test_larger_tensors_are_another_launch(backend, dtype):
    """And all are compiled: what cannot be runs in blocks, with the same bits."""
    for make in (CHAINED, xpopt.LAMB):
        opt, largest = make(), LARGEST[dtype]
        params = [np.ones(size, dtype) for size in (largest, largest + 1, 1)]
        with xpopt.engine("compiled"):
            opt.update_all(params, params)
            assert [row[1:3] for row in opt.explain(params)] == [("compiled", 1), ("compiled", 2), ("compiled", 1)]


@compiled
def test_rules_of_whole_models_and_rules_without_passes_have_one_launch(backend):
    params = [np.ones(size, np.float32) for size in (3, 20_000)]
    for opt in (xpopt.Adam(), xpopt.Adam(clip_global=1.0), xpopt.Adam(clip_norm=1.0)):
        with xpopt.engine("compiled"):
            opt.update_all(params, params)
            assert [row[1:3] for row in opt.explain(params)] == [("compiled", 1)] * 2


@compiled
def test_bits_depend_neither_on_threads_nor_on_the_order_of_tensors(backend):
    rng, results = np.random.default_rng(8), []
    params, grads = ({k: normal(rng, (9_000 + k,)).astype(np.float32) for k in range(60)} for _ in range(2))
    for threads, order in ((1, 1), (2, 1), (3, -1), (4, 1)):
        opt = CHAINED()
        with xpopt.engine("compiled"), xpopt.num_threads(threads):
            new = opt.update_all(*({k: of[k] for k in list(of)[::order]} for of in (params, grads)))
        results.append({k: (new[k], opt.cache[k]["mean"], opt.cache[k]["size"]) for k in params})
    assert all(
        same_bits(a, b) for one in results[1:] for k in params for a, b in zip(one[k], results[0][k], strict=True)
    )


@compiled
@pytest.mark.parametrize(
    "options", [{"clip_norm": 1e9}, {"agc": 0.01, "weight_decay": 0.1}, {"average": xpopt.transforms.EMA(0.9)}], ids=str
)
def test_transforms_go_along(backend, options):
    with xpopt.engine("compiled"):
        compare(lambda: xpopt.LARS(**options), [(), (3, 5), (4097,), (9000,)], "float32", 3)


@compiled
@pytest.mark.parametrize("change", [{"lr": 0.3}, {"lr": 0.3, "weight_decay": 0.5}], ids=str)
def test_groups_have_numbers_of_their_own(backend, change):
    rng = np.random.default_rng(9)
    params, grads = ({k: normal(rng, (size,)) for k, size in (("a", 300), ("b", 5000), ("c", 7))} for _ in range(2))
    of_engine = []
    for engine in ("eager", "compiled"):
        opt, new = xpopt.LAMB(groups={"b": change}), params
        with xpopt.engine(engine):
            for _ in range(3):
                new = opt.update_all(new, grads)
        of_engine.append((new, opt.cache))
    assert all(same_bits(eager, here) for eager, here in zip(*of_engine, strict=True))
    assert not same_bits(xpopt.LAMB().update_all(params, grads)["b"], of_engine[0][0]["b"])
