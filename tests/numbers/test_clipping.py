"""Clipping: right from 1e-200 to 1e200, exactly idle below the bound, never a branch on a value."""

import math
import random

import numpy as np
import pytest
from _kit import oracles
from _kit.rows import FULL, rows
from _kit.trajectories import HAVE_16_BITS, UNIT, low_dtypes, read, verify_clip

import xpopt
from xpopt._arrays.norms import clip, clip_factor

PATTERN = [3.0, -4.0, 12.0, -84.0]  # 85 long
RNG = random.Random(5)


def has_float64(backend):
    return backend.name != "jax"


def scaled(scale):
    return [x * scale for x in PATTERN]


def factor_of(backend, gradient, clip_norm, dtype):
    """The factor, where it needs no scale."""
    x = backend.array(gradient, dtype)
    with np.errstate(all="ignore"):
        scale, factor = clip_factor(backend.xp, x, clip_norm, float64=has_float64(backend))
        assert float(read(backend, scale)) == 1.0
    return factor


@pytest.mark.parametrize(
    "exponent", rows({str(n): n for n in range(-200, 201, 25)}, ["-200", "-100", "0", "100", "200"])
)
def test_float64_of_any_size(backend, exponent):
    if backend.widest != "float64":
        exponent = exponent * 36 // 200  # as far as float32 goes
    scale = 10.0**exponent
    for clip_norm in (scale, 84 * scale, 86 * scale, scale / 1000):
        got, held = verify_clip(backend, scaled(scale), clip_norm, backend.widest, sgd=xpopt.SGD)
        if clip_norm > 85 * scale:
            assert got.tolist() == held  # exactly: the factor is 1


@pytest.mark.parametrize("exponent", [-200, 0, 200])
def test_float64_a_bound_of_one(backend, exponent):
    if backend.widest == "float64":
        verify_clip(backend, scaled(10.0**exponent), 1.0, "float64", sgd=xpopt.SGD)
        verify_clip(backend, [10.0**exponent] * 7, 1.0, "float64", sgd=xpopt.SGD)
    verify_clip(backend, scaled(10.0 ** (exponent / 6)), 1.0, "float32", sgd=xpopt.SGD)


@pytest.mark.parametrize(
    "gradient",
    [
        [3e38, -3e38, 3.4e38],  # the norm is no float32
        [1e25, 1e25, -1e-25],  # the squares are none
        [1e-25, -2e-25, 3e-25],  # the squares are 0
        [1.2e-38, -1.2e-38],  # the least normal ones
        [1e-30, 1e30],
    ],
)
@pytest.mark.parametrize("clip_norm", [1e-37, 1e-25, 1.0, 1e25])
def test_float32_extremes(backend, gradient, clip_norm):
    verify_clip(backend, gradient, clip_norm, "float32", sgd=xpopt.SGD)


@pytest.mark.parametrize(
    ("dtype", "gradient", "clip_norm"),
    [
        ("float32", [3e10, 4e10], 1e-37),
        ("float32", [3e20, 4e20, 1e-10], 1e-20),
        ("float32", [3.4e38, -3.4e38], 5e-37),
        ("bfloat16", [3e38, 1.0], 1e-30),
        ("float64", [3e300, 4e300], 1e-20),
        ("float64", [3e300, 4e300, 1.0], 1e-30),
        ("float64", [1.7e308, -1.7e308], 1e-306),
        ("float64", [1.7e308] * 40, 7.0),  # the norm is none
    ],
)
def test_a_bound_far_below_the_gradient(backend, dtype, gradient, clip_norm):
    """The factor is no normal number of the dtype, but the clipped gradient is."""
    if dtype in backend.dtypes:
        got, _ = verify_clip(backend, gradient, clip_norm, dtype, sgd=xpopt.SGD)
        assert abs(oracles.norm(got.tolist()) / clip_norm - 1) < (0.01 if dtype == "bfloat16" else 1e-6)


@HAVE_16_BITS
@pytest.mark.parametrize(
    ("gradient", "clip_norm"),
    [
        ([6e4, -6e4, 6e4], 1.0),  # the sum of squares is no float16
        ([6e4, -6e4, 6e4], 1e4),
        ([1e-4, -2e-4], 1e-4),  # the squares are 0 in float16
        ([300.0] * 50, 7.0),
        ([0.1, 0.2], 1e3),
    ],
)
@pytest.mark.any_width
def test_16_bits(backend, gradient, clip_norm):
    for dtype in low_dtypes(backend):
        got, held = verify_clip(backend, gradient, clip_norm, dtype, sgd=xpopt.SGD)
        if clip_norm == 1e3:
            assert got.tolist() == held


@pytest.mark.backends("numpy", "numpy-readonly", "torch", "jax", "jax-x64", "cupy")
def test_bfloat16_extremes(backend):
    if backend.library == "numpy":
        pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 comes with ml_dtypes")
    verify_clip(backend, [3e38, -3e38, 1e38], 20.0, "bfloat16", sgd=xpopt.SGD)
    verify_clip(backend, [1e-30, -3e-30], 1e-30, "bfloat16", sgd=xpopt.SGD)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 65537])
def test_many_elements(backend, size):
    """In float32 a plain running sum of so many squares would be off by more than is allowed here."""
    gradient = np.random.default_rng(3).normal(1.0, 0.3, size)
    for dtype in {"float32", backend.widest}:
        # summed in float64, a pass of pairs, or 16 partial sums: far fewer roundings than elements
        verify_clip(backend, gradient, 0.1, dtype, sgd=xpopt.SGD, roundings=12 + size**0.5)


@pytest.mark.parametrize("shape", [(), (1,), (2, 2), (1, 4, 1)])
def test_shapes(backend, shape):
    gradient = np.reshape(PATTERN[: math.prod(shape)], shape)
    for dtype in backend.dtypes:
        verify_clip(backend, gradient, 0.5, dtype, sgd=xpopt.SGD)
        x = backend.array(gradient, dtype)
        assert tuple(clip(backend.xp, x, 0.5, float64=has_float64(backend)).shape) == shape
        assert tuple(factor_of(backend, gradient, 0.5, dtype).shape) == ()


def test_zeros_stay_zeros(backend):
    for dtype in backend.dtypes:
        got, _ = verify_clip(backend, [0.0, -0.0, 0.0], 1e-3, dtype, sgd=xpopt.SGD)
        assert got.tolist() == [0.0, 0.0, 0.0]
        assert 0 < float(read(backend, factor_of(backend, [0.0, 0.0], 1e-3, dtype))) <= 1


def test_nothing_stays_nothing(backend):
    for dtype in backend.dtypes:
        x = backend.array(np.zeros((3, 0)), dtype)
        assert tuple(clip(backend.xp, x, 1.0, float64=has_float64(backend)).shape) == (3, 0)
        assert float(read(backend, factor_of(backend, np.zeros((3, 0)), 1.0, dtype))) == 1.0


@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf], [math.inf, -math.inf], [math.nan, math.inf]])
def test_a_norm_that_is_not_finite_shows(backend, bad):
    """Every element becomes NaN: none is silently set to 0, and none is left as if it had been clipped."""
    for dtype in backend.dtypes:
        param, gradient = backend.array(np.zeros(2 + len(bad)), dtype), backend.array([1.0, *bad, 2.0], dtype)
        assert np.all(np.isnan(read(backend, xpopt.SGD(clip_norm=1.0).update(param, gradient, "W"))))


def test_the_factor_is_exactly_one_up_to_the_bound(backend):
    for dtype in {"float32", backend.widest}:
        for _ in range(40 if backend.name in FULL else 5):
            gradient = backend.numpy(backend.array([RNG.gauss(0, 1) for _ in range(9)], dtype)).tolist()
            length = oracles.norm(gradient)
            above = length * (1 + 32 * UNIT[dtype])
            assert float(read(backend, factor_of(backend, gradient, above, dtype))) == 1.0
            factor = float(read(backend, factor_of(backend, gradient, length * 0.999, dtype)))
            assert abs(factor - 0.999) <= 16 * UNIT[dtype]
        # in numbers that round nowhere, at the bound itself
        assert float(read(backend, factor_of(backend, [3.0, 4.0], 5.0, dtype))) == 1.0


def test_the_factor_never_scales_up(backend):
    for dtype in backend.dtypes:
        for clip_norm in (1e-3, 1.0, 1e3, 1e30, 1e300):
            factor = float(read(backend, factor_of(backend, [1e-3, 0.2, -1.0], clip_norm, dtype)))
            assert 0.0 <= factor <= 1.0
            assert factor == 1.0 or clip_norm < 1.1


def test_the_clipped_norm_is_within_the_bound(backend):
    for dtype in {"float32", backend.widest}:
        x = backend.array([RNG.gauss(0, 1e3) for _ in range(200)], dtype)
        got = read(backend, clip(backend.xp, x, 2.5, float64=has_float64(backend))).ravel()
        assert abs(oracles.norm(got.tolist()) / 2.5 - 1) <= 210 * UNIT[dtype]


def test_dtypes_of_factor_and_result(backend):
    """Summed in float64 where there is one, the factors are float64; the result is what came in."""
    for dtype in backend.dtypes:
        for gradient in ([1.0, 2.0], [0.0], [math.nan]):
            wide = "float64" if has_float64(backend) else "float32"
            x = backend.array(gradient, dtype)
            with np.errstate(all="ignore"):
                both = clip_factor(backend.xp, x, 1.0, float64=has_float64(backend))
            assert [number.dtype for number in both] == [backend.dtype(wide)] * 2
            assert clip(backend.xp, x, 1.0, float64=has_float64(backend)).dtype == backend.dtype(dtype)


@pytest.mark.parametrize("exponent", [-34, -25, 0, 25, 37, 38])
def test_without_float64(backend, exponent):
    """As on a device that has none: scaled by the largest magnitude, in float32."""
    gradient = [x * 10.0**exponent / 84 for x in PATTERN]  # the largest is a power of 10
    x = backend.array(gradient, "float32")
    held = backend.numpy(x).tolist()
    for clip_norm in (1e-36, 0.5 * 10.0**exponent, 2 * 10.0**exponent):
        with np.errstate(all="ignore"):
            scale, factor = clip_factor(backend.xp, x, clip_norm, float64=False)
        assert scale.dtype == factor.dtype == backend.dtype("float32")
        want = min(1.0, clip_norm / oracles.norm(held))
        assert abs(float(read(backend, scale)) * float(read(backend, factor)) - want) <= 12 * UNIT["float32"] * want


def test_no_bound_computes_nothing(backend):
    """Without `clip_norm` an infinite gradient spoils itself alone."""
    new = xpopt.SGD(lr=1.0).update(backend.array([0.0, 0.0]), backend.array([math.inf, 2.0]), "W")
    assert backend.numpy(new).tolist() == [-math.inf, -2.0]
