"""What is true of Dask: results are lazy, and its arrays may change what they stand for after the call."""

import numpy as np
import pytest
from states import equal, every_optimizer, frozen, nothing_changes

from xpopt import SGD, Adam

pytestmark = pytest.mark.backends("dask")


@pytest.mark.parametrize("which", ["parameter", "gradient of"])
def test_an_unknown_shape_is_refused_by_name(backend, which):
    opt = Adam()
    x = backend.array([1.0, 2.0, 3.0])
    unknown = x[x > 1.5]
    pair = (unknown, unknown) if which == "parameter" else (x, unknown)
    with nothing_changes(backend, opt, x), pytest.raises(ValueError, match=f"{which} 'W' has"):
        opt.update(*pair, "W")


@every_optimizer
def test_what_is_assigned_into_an_array_later_is_not_seen(backend, make):
    opt, other = make(), make()
    W, g = backend.array([1.0, 2.0]), backend.array([3.0, 4.0])
    new = opt.update(W, g, "W")
    W[0] = g[0] = 77.0
    want = other.update(backend.array([1.0, 2.0]), backend.array([3.0, 4.0]), "W")
    assert frozen(backend, [new, opt.cache]) == frozen(backend, [want, other.cache])
    before = frozen(backend, opt.cache)
    new[0] = 55.0
    assert frozen(backend, opt.cache) == before


@every_optimizer
def test_any_chunks(backend, xp, make):
    values = np.random.default_rng(9).normal(size=(4, 6))
    want = make(clip_norm=None).update(backend.array(values), backend.array(values), "W")
    W, g = xp.asarray(values).rechunk((3, 2)), xp.asarray(values).rechunk((1, 6))
    assert equal(backend, make(clip_norm=None).update(W, g, "W"), backend.numpy(want))


def test_a_model_is_one_graph(backend):
    """Nothing is computed until it is asked for, many steps later."""
    opt = SGD(lr=0.5)
    W = backend.array([8.0])
    for _ in range(3):
        W = opt.update_all([W], [W])[0]
    assert equal(backend, W, [1.0])
