"""Transforms that remember beside those of optax: 50 steps in float64, in three shapes, alone and with others."""

from importlib.util import find_spec

import numpy as np
import pytest
from _kit import problems

from xpopt import EMA, Adam, Lookahead

pytestmark = pytest.mark.backends("jax-x64")

SHAPES = {"number": (), "matrix": (7, 5), "vector": (131,)}
ADAM = {"b1": 0.9, "b2": 0.999, "eps": 1e-7}


def adam(optax, more):
    """Adam as it is here by default, or with decay and clipping."""
    if not more:
        return optax.adam(0.0625, **ADAM), {}
    clipped = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.0625, **ADAM, weight_decay=0.125))
    return clipped, {"clip_norm": 0.5, "weight_decay": 0.125}


def jitted(transform):
    """Its update, compiled."""
    return pytest.importorskip("jax").jit(transform.update)


def averages(optax, inner, start, gradients):
    """The debiased average of the parameters that `inner` walks through."""
    ema = optax.ema(0.875, debias=True)
    state, held = inner.init(start), ema.init(start)
    step, average_of = jitted(inner), jitted(ema)
    for gradient in gradients:
        updates, state = step(gradient, state, start)
        start = optax.apply_updates(start, updates)
        average, held = average_of(start, held)
        yield average


def looking_ahead(optax, inner, start, gradients):
    """Fast parameters around which slow ones are kept."""
    opt = optax.lookahead(inner, sync_period=6, slow_step_size=0.5)
    params = optax.LookaheadParams.init_synced(start)
    state, step = opt.init(params), jitted(opt)
    for gradient in gradients:
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
        yield params.fast


def accumulating(optax, inner, start, gradients):
    """A step of the mean of four."""
    opt = optax.MultiSteps(inner, every_k_schedule=4, accumulator_dtype="float64")
    state, step = opt.init(start), jitted(opt)
    for gradient in gradients:
        updates, state = step(gradient, state, start)
        start = optax.apply_updates(start, updates)
        yield start


CASES = {
    "EMA": (averages, {"average": EMA(0.875)}),
    "lookahead": (looking_ahead, {"lookahead": Lookahead(every=6, pull=0.5)}),
    "accumulate": (accumulating, {"accumulate": 4}),
}


@pytest.mark.parametrize("more", [False, True] if find_spec("optax") else [True], ids="more={}".format)
@pytest.mark.parametrize(("theirs", "ours"), CASES.values(), ids=CASES)
def test_beside_optax(backend, theirs, ours, more):
    optax = pytest.importorskip("optax", reason="optax, with which these are compared, is missing")
    for shape in SHAPES.values():
        var = problems.variable(61, shape)
        gradients = [np.reshape(g, shape) for g in var.gradients]
        start = np.reshape(var.start, shape)
        inner, options = adam(optax, more)
        opt, params, walked = Adam(lr=0.0625, **options, **ours), [start], 0.0
        before = start
        assert len(gradients) == 50
        wanted = theirs(optax, inner, backend.array(start), map(backend.array, gradients))
        for gradient, want in zip(gradients, wanted, strict=True):
            params = opt.update_all(params, [gradient])
            got = opt.averaged(params)[0] if "average" in ours else params[0]
            walked += np.max(np.abs(want - before))
            before = want
            assert np.max(np.abs(got - want)) <= 1e-9 * walked
