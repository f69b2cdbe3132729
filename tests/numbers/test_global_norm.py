"""The norm of a whole model: right from the smallest number to the largest, of any library, and waiting for nothing."""

import math
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
from _kit import oracles
from _kit.trajectories import HAVE_16_BITS, UNIT, low_dtypes, read

import xpopt
from xpopt.clipping import clip_by_global_norm, global_norm

LEAST = {"float32": 2.0**-126, "float64": 2.0**-1022}


def has_float64(backend):
    return backend.name != "jax"


def model(backend, values, dtype):
    """The values in a nested model: an array of shape (), a matrix, an empty one, one that is not there, and a list."""
    first, *others = values
    half = len(others) // 2 * 2
    return {
        "scalar": backend.array(first, dtype),
        "deep": {"matrix": backend.array(np.reshape(others[:half], (2, -1)), dtype), "none": None},
        "list": [backend.array(np.zeros((0, 3)), dtype), backend.array(others[half:], dtype), {}],
    }


def flat(backend, tree):
    parts = (tree["scalar"], tree["deep"]["matrix"], tree["list"][1])
    return np.concatenate([np.ravel(read(backend, x)) for x in parts]).tolist()


def exact_norm(values):
    """To twice the digits of float64, of whatever size."""
    square = sum((Fraction(v) ** 2 for v in values), Fraction(0))
    shift = 2 * max(0, 2300 - square.numerator.bit_length() + square.denominator.bit_length())
    return Fraction(math.isqrt((square.numerator << shift) // square.denominator), 1 << shift // 2)


PATTERN = [3.0, -4.0, 12.0, -84.0, 0.25, 0.0, 7.5]
SCALES = {"float32": (1e-37, 1e-25, 1.0, 1e25, 3e36), "float64": (1e-306, 1e-200, 1.0, 1e200, 1e306)}


@pytest.mark.parametrize("place", range(5))
def test_the_norm_at_any_scale(backend, place):
    for dtype in {"float32", backend.widest}:
        tree = model(backend, [x * SCALES[dtype][place] for x in PATTERN], dtype)
        got, want = global_norm(tree), exact_norm(flat(backend, tree))
        assert got.shape == ()
        assert type(got) is type(tree["scalar"])
        assert got.dtype == backend.dtype("float64" if has_float64(backend) else "float32")
        unit = UNIT["float64" if has_float64(backend) else "float32"]
        assert abs(Fraction(float(read(backend, got))) / want - 1) <= 16 * unit


@pytest.mark.backends("numpy", "numpy-readonly", "torch")
def test_the_smallest_and_the_largest_norms(backend):
    for values, want in (
        ([5e-324, 0.0, 0.0], 5e-324),
        ([3 * 5e-324, 0.0, 4 * 5e-324], 5 * 5e-324),
        ([1.7e308, 0.0, 3e307], math.hypot(1.7e308, 3e307)),
        ([1.7976931348623157e308, 0.0, 0.0], 1.7976931348623157e308),
        ([1e308, 1e308, 1e308, 1e308], math.inf),  # there is no such number
    ):
        got = float(global_norm([backend.array([v], "float64") for v in values]))
        assert got == want or abs(got / want - 1) <= 4 * UNIT["float64"]


@pytest.mark.parametrize("max_norm", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("place", range(5))
def test_clipping_at_any_scale(backend, place, max_norm):
    """By one factor, or not at all; also where the factor is no number of the dtype."""
    for dtype in {"float32", backend.widest}:
        for bound in (max_norm, max_norm * SCALES[dtype][place]):
            if not LEAST[dtype] <= bound / 1e4 <= bound <= 1e37:
                continue
            tree = model(backend, [x * SCALES[dtype][place] for x in PATTERN], dtype)
            before = flat(backend, tree)
            clipped = clip_by_global_norm(tree, bound)
            got, want = flat(backend, clipped), oracles.clipped(before, bound)
            assert np.all(np.abs(np.subtract(got, want)) <= 16 * UNIT[dtype] * np.abs(want) + 4 * LEAST[dtype])
            assert flat(backend, tree) == before
            assert got == before or exact_norm(before) > bound
            assert clipped["deep"]["none"] is None
            assert clipped["list"][2] == {}
            assert tuple(clipped["list"][0].shape) == (0, 3)
            assert type(clipped["scalar"]) is type(tree["scalar"])
            assert {x.dtype for x in (clipped["scalar"], *clipped["list"][:2])} == {backend.dtype(dtype)}


def test_a_norm_that_is_no_number_is_clipped_all_the_same(backend):
    large = {"float32": 3e38, "float64": 1.7e308}[backend.widest]
    tree = [backend.array([large, -large], backend.widest) for _ in range(50)]
    for x in clip_by_global_norm(tree, 5.0):
        assert np.all(np.abs(read(backend, x) - [0.5, -0.5]) <= 120 * UNIT[backend.widest])


def test_zeros_and_nothing(backend):
    for dtype in backend.dtypes:
        for values in ([0.0, -0.0], []):
            tree = {"W": backend.array(values, dtype), "b": backend.array(np.zeros((0, 2)), dtype)}
            assert float(read(backend, global_norm(tree))) == 0.0
            clipped = clip_by_global_norm(tree, 1e-30)
            assert read(backend, clipped["W"]).tolist() == values
            assert tuple(clipped["b"].shape) == (0, 2)
    for nothing in ({}, [], {"W": None}, [{}, []], None):
        assert float(global_norm(nothing)) == 0.0
        assert clip_by_global_norm(nothing, 1.0) == nothing


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_not_finite_shows(backend, bad):
    """In every array, as in an update with `clip_norm`."""
    for dtype in backend.dtypes:
        tree = [backend.array([1.0, 2.0], dtype), backend.array([bad, 0.0], dtype)]
        norm = float(read(backend, global_norm(tree)))
        assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
        assert all(np.all(np.isnan(read(backend, x))) for x in clip_by_global_norm(tree, 1.0))


@HAVE_16_BITS
def test_dtypes_may_differ(backend):
    """16 bits are multiplied in float32 and rounded once."""
    for low in low_dtypes(backend):
        tree = [backend.array([6e4, -3e4], low), backend.array([1e5], backend.widest), backend.array([7e3], "float32")]
        held = [x for part in tree for x in read(backend, part).tolist()]
        clipped = clip_by_global_norm(tree, 100.0)
        assert [x.dtype for x in clipped] == [x.dtype for x in tree]
        want = oracles.clipped(held, 100.0)
        got = [x for part in clipped for x in read(backend, part).tolist()]
        for value, exact, dtype in zip(got, want, [low, low, backend.widest, "float32"], strict=True):
            assert abs(value - exact) <= oracles.ulp(exact, dtype) / 2 + 8 * UNIT["float32"] * abs(exact)


def test_it_is_the_clip_of_a_single_parameter(backend):
    """With one gradient, the bits are those of `clip_norm`: both have one formula."""
    for dtype in {"float32", backend.widest}:
        grad = backend.array([3.0, -4.0, 0.1], dtype)
        (clipped,) = clip_by_global_norm([grad], 0.7)
        start = backend.array([0.0] * 3, dtype)
        moved = xpopt.SGD(lr=1.0, clip_norm=0.7).update(start, grad, "W")
        assert np.all(np.abs(read(backend, clipped) + read(backend, moved)) <= 4 * UNIT[dtype])


@pytest.mark.backends("numpy")
def test_what_a_tree_may_be():
    assert float(global_norm(np.array([3.0, 4.0]))) == 5.0  # one array
    assert float(global_norm({"a": 3.0, "b": np.float64(4.0)})) == 5.0  # floats
    clipped = clip_by_global_norm(OrderedDict(a=3.0, b=(np.array([4.0]), None)), 1.0)
    assert type(clipped) is OrderedDict
    assert abs(clipped["a"] - 0.6) < 1e-15
    assert abs(clipped["b"][0] - 0.8) < 1e-15
    assert clipped["b"][1] is None


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("function", [global_norm, lambda tree: clip_by_global_norm(tree, 1.0)])
def test_what_it_may_not(function):
    for tree, error, says in (
        ({"W": np.arange(3)}, TypeError, "leaf 'W' has dtype int64; convert it"),
        ({"a": {"W": np.ones(2, np.clongdouble)}}, TypeError, "leaf 'a/W' has dtype c.*; convert it to one of"),
        ({"W": "text"}, TypeError, "leaf 'W' is a str; wanted an array"),
        ({"W": np.ma.ones(3)}, TypeError, "leaf 'W' is a numpy.ma"),
        (np.bool_(True), TypeError, "leaf 'tree' has dtype bool"),
    ):
        with pytest.raises(error, match=says):
            function(tree)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, math.inf, "1", None])
def test_a_bound_that_is_none(max_norm):
    with pytest.raises((TypeError, ValueError), match="clip_by_global_norm: max_norm"):
        clip_by_global_norm({"W": np.ones(2)}, max_norm)


@pytest.mark.backends("torch")
def test_other_libraries_and_devices(backend):
    import torch

    with pytest.raises(TypeError, match="leaf 'b' is an array of numpy, leaf 'W' of torch; convert one of them"):
        global_norm({"W": torch.ones(2), "b": np.ones(2)})
    with pytest.raises(ValueError, match="leaf 'b' is on meta, leaf 'W' on cpu; move it, or take"):
        global_norm({"W": torch.ones(2), "b": torch.ones(2, device="meta")})
    (clipped,) = clip_by_global_norm([torch.ones(2, requires_grad=True)], 1.0)
    assert not clipped.requires_grad


@pytest.mark.backends("jax", "jax-x64")
@pytest.mark.parametrize("gradient", [[3.0, 4.0], [0.0, 0.0], [0.3, 0.4], [np.nan, 1.0]])
def test_under_jit(backend, gradient):
    """A tracer has no value: whoever asks for one gets an error."""
    import jax

    tree = {"W": backend.array(gradient, backend.widest), "b": backend.array([0.5], "float32")}
    for function in (global_norm, lambda tree: clip_by_global_norm(tree, 2.5)):
        pairs = zip(jax.tree.leaves(jax.jit(function)(tree)), jax.tree.leaves(function(tree)), strict=True)
        assert all(np.allclose(backend.numpy(a), backend.numpy(b), rtol=1e-6, equal_nan=True) for a, b in pairs)


@pytest.mark.backends("dask")
def test_dask_stays_lazy(backend):
    import dask

    def computes(*args, **kwargs):
        raise AssertionError("something was computed")

    tree = {"W": backend.array([3.0, 0.0], "float64"), "b": backend.array([4.0], "float64")}
    with dask.config.set(scheduler=computes):
        norm, clipped = global_norm(tree), clip_by_global_norm(tree, 1.0)
    assert float(norm.compute()) == 5.0
    assert clipped["W"].compute().round(3).tolist() == [0.6, 0.0]
