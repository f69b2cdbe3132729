"""What exp, log and powers of arrays may differ by between engines: the bounds of docs/guide/engines.md."""

from __future__ import annotations

import numpy as np
import pytest
from _kit.bits import same_bits
from _kit.engines import of_rule

import xpopt
from xpopt._graph.rule import NoSlots

pytestmark = pytest.mark.backends("numpy")

BOUNDS = {"exp": {"float32": 4, "float64": 2}, "log": {"float32": 5, "float64": 2}, "pow": {"float32": 5, "float64": 5}}
RULES = {
    "exp": lambda xp, param, grad, s, h: (xp.exp(grad), s),
    "log": lambda xp, param, grad, s, h: (xp.log(grad), s),
    "pow": lambda xp, param, grad, s, h: (param**grad, s),
}


def drawn(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a parameter and a gradient: all that is finite for exp, and where log and powers are hardest."""
    rng, size = np.random.default_rng(5), 200_000
    top = np.log(np.finfo(dtype).max)
    param = np.exp(rng.uniform(-5, 5, size))
    if name == "exp":
        grad = np.concatenate([rng.uniform(-top, top, size // 2), rng.uniform(-1, 1, size // 2)])
    elif name == "log":
        grad = np.concatenate([np.exp(rng.uniform(-top, top, size // 2) * 0.99), rng.uniform(0.5, 2, size // 2)])
    else:
        grad = rng.uniform(-8, 8, size)
    return param.astype(dtype), grad.astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RULES)
def test_functions_stay_within_their_bounds(backend, fused, name, dtype):
    param, grad = drawn(name, dtype)
    own = of_rule(RULES[name], NoSlots)
    got = own().update(param, grad, "W")
    with xpopt.engine("eager"):
        want = own().update(param, grad, "W")
    assert np.isfinite(want).all()
    if fused == "blocked":
        assert same_bits(got, want)
    assert np.all(np.abs(got - want) <= BOUNDS[name][dtype] * np.spacing(np.abs(want)))
