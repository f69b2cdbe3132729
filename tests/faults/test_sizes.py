"""A finite gradient whose norm, or a product of norms, is not finite: the step is refused."""

from __future__ import annotations

import numpy as np
import pytest

import xpopt

not_dask = pytest.mark.backends("numpy", "array-api-strict", "torch", "jax")

CASES = {
    "agc": (lambda **kw: xpopt.SGD(agc=0.5, **kw), 3e38),  # whose norm is 4.2e38
    "NovoGrad": (xpopt.NovoGrad, 1e22),
    "DoG": (xpopt.DoG, 1e22),
    "Prodigy": (lambda **kw: xpopt.Prodigy(initial=1e10, **kw), 1e12),  # its product with the distance is squared
}


@not_dask
@pytest.mark.parametrize(("make", "large"), CASES.values(), ids=CASES)
def test_what_a_norm_makes_infinite_is_refused(backend, make, large):
    """All parameters stay, and the state of none comes to be; the same with a norm that is small is a step."""
    opt = make(nonfinite="skip")
    params = [backend.array(np.ones(2), "float32") for _ in range(2)]
    grads = [backend.array(np.full(2, x), "float32") for x in (1.0, large)]
    new = opt.update_all(params, grads)
    assert opt.skipped == 1
    assert all(backend.numpy(x).tolist() == [1.0, 1.0] for x in new)
    opt = make(nonfinite="skip")
    new = opt.update_all(params, [grads[0], grads[0]])
    assert opt.skipped == 0
    assert all(np.isfinite(backend.numpy(x)).all() and (backend.numpy(x) < 1).all() for x in new)
    loud = make(nonfinite="raise")
    with pytest.raises(FloatingPointError, match="too large"):
        loud.update_all(params, grads)


@not_dask
@pytest.mark.parametrize("options", [{"clip_norm": 1.0}, {"clip_global": 1.0}], ids=str)
def test_what_is_clipped_is_no_reason(backend, options):
    opt = xpopt.SGD(lr=1.0, nonfinite="skip", **options)
    zeros = backend.array(np.zeros(2), "float32")
    (new,) = opt.update_all([zeros], [backend.array(np.full(2, 3e38), "float32")])
    assert opt.skipped == 0
    np.testing.assert_allclose(backend.numpy(new), -(0.5**0.5), rtol=1e-6)


@not_dask
def test_a_slot_of_one_number_counts_as_it_is(backend):
    """A distance that has grown, here by hand: of a state that is there, and of one that a file brings."""
    params = [backend.array(np.ones(3), "float32")]
    small, large = ([backend.array(np.full(3, x), "float32")] for x in (1.0, 1e12))
    opt = xpopt.Prodigy(nonfinite="skip")
    assert np.isfinite(backend.numpy(opt.update_all(params, large)[0])).all()
    assert opt.skipped == 0
    opt = xpopt.Prodigy(nonfinite="skip")
    opt.update_all(params, small)
    opt.set_params(cache_dict={0: {**opt.cache[0], "estimate": backend.array(1e10, "float32")}})
    twin, header = xpopt.Prodigy(), opt.state_dict()
    arrays = {key: np.asarray(backend.numpy(x)).astype(np.float32) for key, x in header["arrays"].items()}
    twin.load_state_dict({"header": header["header"], "arrays": arrays})
    for one in (opt, twin):
        (new,) = one.update_all(params, large)
        assert one.skipped == 1
        assert backend.numpy(new).tolist() == [1.0] * 3
