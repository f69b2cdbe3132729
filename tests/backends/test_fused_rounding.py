"""Stochastic rounding in compiled kernels: the bits of the eager engine, whatever is kept, shared out or mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.engines import MAKE, few_rules, needs_llvmlite

import xpopt

pytestmark = [pytest.mark.backends("numpy"), needs_llvmlite]

low = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])

SHAPES: dict[str, tuple[int, ...]] = {
    "number": (),
    "none": (0, 3),
    "odd": (7, 11),
    "matrix": (33, 4),
    "pieces": (40_001,),
}


def trained(engine: str, make: Any, dtype: str, steps: int = 5, **kwargs: Any) -> Any:
    """Return parameters and state after some steps: new results, in place, with counts that differ."""
    opt, rng = make(rounding="stochastic", seed=11, **kwargs), np.random.default_rng(3)
    params = {name: cast(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}
    params["wide"] = rng.standard_normal(5).astype(np.float32)
    with xpopt.engine(engine):
        for step in range(steps):
            grads: dict[str, Any] = {name: cast(rng.standard_normal(x.shape), dtype) for name, x in params.items()}
            grads["wide"] = grads["wide"].astype(np.float32)
            if step == 0:
                grads["odd"] = None
            params = opt.update_all(params, grads, out=params if step % 2 else None)
        params["odd"] = opt.update(params["odd"], params["odd"].copy(), "odd")
    return params, opt


@low
@few_rules
def test_bits_are_those_of_the_eager_engine(backend, name, dtype):
    want, reference = trained("eager", MAKE[name], dtype)
    got, opt = trained("compiled", MAKE[name], dtype)
    assert same_bits(got, want)
    assert same_bits(opt.cache, reference.cache)
    with xpopt.engine("compiled"):
        assert {row.engine for row in opt.explain(got)} == {"compiled"}


@low
def test_special_values(backend, dtype):
    """Numbers that are not finite, zeros of both signs, subnormals, and the largest there are."""
    ends = [0.0, -0.0, np.inf, -np.inf, np.nan, 65504.0, -65504.0, 6e-8, -6e-8, 3e-5, 1.0, -1.0]
    ends += [3.3895e38, 1e-40, -1e-40] if dtype == "bfloat16" else []
    for rate in (0.0, 1e-9, 1e-3, 1.0, 1e4):
        results = []
        for engine in ("eager", "compiled"):
            opt = xpopt.SGD(lr=rate, rounding="stochastic")
            with xpopt.engine(engine):
                x = cast(np.tile(np.array(ends), 50), dtype)
                for _ in range(3):
                    x = opt.update(x, cast(np.resize([1.0, -3.0, 0.3], x.size), dtype), "W")
            results.append(x)
        assert same_bits(*results)


@low
def test_threads_draw_the_same(backend, dtype):
    results = []
    for threads in (1, 3):
        opt, x = xpopt.SGD(lr=1e-3, rounding="stochastic"), cast(np.ones(1_200_007), dtype)
        with xpopt.engine("compiled"), xpopt.num_threads(threads):
            for _ in range(2):
                x = opt.update(x, cast(np.ones(x.size), dtype), "W")
        results.append(x)
    assert same_bits(*results)


def test_what_no_kernel_draws(backend):
    opt = xpopt.Adam(rounding="stochastic")
    params = {"C": np.ones((3, 4), np.float16), "F": np.ones((4, 3), np.float16).T, "wide": np.ones(4)}
    with xpopt.engine("compiled"):
        c, f, wide = opt.explain(params)
    assert (c.engine, f.engine, wide.engine) == ("compiled", "eager", "compiled")
    assert "C order" in f.reason
    with xpopt.engine("blocked"):
        c, f, wide = opt.explain(params)
    assert (c.engine, f.engine, wide.engine) == ("eager", "eager", "blocked")
    assert "does not round" in c.reason


def test_the_source_shows_it(backend):
    opt = xpopt.SGD(rounding="stochastic")
    for target in ("llvm", "cuda"):
        assert "draw_float16(" in xpopt.kernel_source(opt, target, "float16")
        assert "draw" not in xpopt.kernel_source(opt, target, "float32")
        assert "draw" not in xpopt.kernel_source(xpopt.SGD(), target, "float16")
