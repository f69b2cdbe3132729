"""States of complex parameters in files: pairs of reals there, complex again for whoever reads them."""

import json

import numpy as np
import pytest
from _kit.bits import same_bits

from xpopt import Adam, CheckpointError, NAdam, load_optimizer

safetensors = pytest.importorskip("safetensors", reason="checkpoints need safetensors: pip install 'xpopt[checkpoint]'")
import safetensors.numpy as tensors  # noqa: E402 - only where it is installed

pytestmark = pytest.mark.any_immutable

STARTS = {"matrix": (3, 2), "number": ()}


def trained(backend, make=NAdam, steps=3):
    """An optimizer after some steps, its parameters and their gradient: complex ones, and a real one beside them."""
    rng = np.random.default_rng(8)
    grads = {name: backend.complex(rng.normal(size=of) + 1j * rng.normal(size=of)) for name, of in STARTS.items()}
    grads["real"] = backend.array([1.0, -2.0])
    params, opt = dict(grads), make(lr=0.125)
    for _ in range(steps):
        params = opt.update_all(params, grads)
    return opt, params, grads


def same(backend, one, other):
    return all(same_bits(backend.exactly(x), backend.exactly(other[name])) for name, x in one.items())


def test_a_file_brings_back_every_bit(backend, tmp_path):
    opt, params, grads = trained(backend)
    opt.save(tmp_path / "opt")
    placed, read, again = NAdam(), NAdam(), load_optimizer(tmp_path / "opt", like=params)
    placed.load(tmp_path / "opt", like=params)
    read.load(tmp_path / "opt")
    want = opt.update_all(params, grads)
    for one in (placed, read, again):
        assert same(backend, one.update_all(params, grads), want)
        for name, entry in opt.cache.items():
            assert same_bits(backend.exactly(one.cache[name]["var"]), backend.exactly(entry["var"]))
            assert one.cache[name]["var"].dtype == entry["var"].dtype
            assert one.cache[name]["product"].dtype == entry["product"].dtype


def test_the_file_is_what_the_guide_says(backend, tmp_path):
    """Read with safetensors alone: pairs along the last axis, and a header that has the complex dtype."""
    opt, _, _ = trained(backend)
    opt.save(tmp_path / "opt")
    with safetensors.safe_open(tmp_path / "opt", framework="np") as file:
        (matrix, *_) = json.loads(file.metadata()["xpopt"])["parameters"]
    assert matrix["dtype"] == matrix["slots"]["mean"]["dtype"] == backend.widest_complex
    assert matrix["slots"]["mean"]["shape"] == [3, 2]
    pairs = tensors.load_file(tmp_path / "opt")["matrix/mean"]
    want = backend.exactly(opt.cache["matrix"]["mean"])
    assert (pairs.dtype, pairs.shape) == (np.dtype(backend.widest), (3, 2, 2))
    assert np.array_equal(pairs[..., 0] + 1j * pairs[..., 1], want)


def test_copies_and_dicts(backend):
    opt, params, grads = trained(backend)
    loaded, by_hand = NAdam(), NAdam(lr=0.125)
    loaded.load_state_dict(opt.state_dict(), like=params)
    by_hand.set_params(cache_dict=opt.cache)
    ways = [opt.copy(), loaded, by_hand]
    want = opt.update_all(params, grads)
    assert all(same(backend, one.update_all(params, grads), want) for one in ways)


@pytest.mark.backends("numpy")
def test_a_dtype_may_be_cast(backend, tmp_path):
    opt, params, _ = trained(backend)
    opt.save(tmp_path / "opt")
    narrow = {name: x.astype(np.complex64 if x.dtype.kind == "c" else np.float32) for name, x in params.items()}
    with pytest.raises(CheckpointError, match=r"'matrix' is complex128 in the .* complex64 in like; cast=True"):
        NAdam().load(tmp_path / "opt", like=narrow)
    one = NAdam()
    one.load(tmp_path / "opt", like=narrow, cast=True)
    for name, entry in opt.cache.items():
        kept = one.cache[name]["mean"]
        assert np.array_equal(kept, entry["mean"].astype(kept.dtype))
        assert one.cache[name]["product"].dtype == np.float32


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("kinds", [("complex128", "float64"), ("float32", "complex64")])
def test_a_cast_keeps_real_and_complex_numbers_apart(backend, kinds):
    saved, like = ({"z": np.ones(2, dtype)} for dtype in kinds)
    opt, one = Adam(), Adam()
    opt.update_all(saved, saved)
    for options in {"cast": True}, {}:
        with pytest.raises(CheckpointError, match=rf"'z' is {kinds[0]} in the .* {kinds[1]} in like; no state"):
            one.load_state_dict(opt.state_dict(), like=like, **options)
    assert one.cache == {}


@pytest.mark.backends("numpy")
def test_a_header_that_is_not_of_its_arrays(backend):
    opt = Adam()
    opt.update(np.ones(3, complex), np.ones(3, complex), "z")
    state = opt.state_dict()
    state["arrays"]["z/mean"] = np.ones((3, 2))
    with pytest.raises(CheckpointError, match=r"'z/mean' is float64 of shape \(3, 2\); by the header complex128"):
        Adam().load_state_dict(state)
    state["arrays"]["z/mean"] = np.ones(3)
    with pytest.raises(CheckpointError, match="'z/mean' is float64"):
        Adam().load_state_dict(state)
