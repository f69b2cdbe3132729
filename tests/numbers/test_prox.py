"""Proximal maps: what each makes of an array, and of an optimizer; where they fuse; what rounding leaves."""

import json
import pickle

import numpy as np
import pytest
from _kit.bits import cast, same_bits

import xpopt
from xpopt import FISTA, SGD, Adam, prox

pytestmark = pytest.mark.any_width

on_numpy = pytest.mark.backends("numpy")

X = np.array([[0.5, -2.0, 0.0, 1.25], [0.0, 0.0, 0.0, 0.0], [-3.0, -1.0, 0.25, -0.125], [7.0, 7.0, -1.0, 6.5]])
WEIGHTS = np.array([[0.0, 0.5, 1.0, 2.0]] * 4)


def onto_simplex(rows, total):
    """Of each row, by bisection of the threshold at which what is left has the sum."""
    low, high = rows.min(axis=-1, keepdims=True) - total, rows.max(axis=-1, keepdims=True)
    for _ in range(200):
        theta = (low + high) / 2
        above = np.maximum(rows - theta, 0).sum(axis=-1, keepdims=True) > total
        low, high = np.where(above, theta, low), np.where(above, high, theta)
    return np.maximum(rows - theta, 0)


def onto_spheres(rows):
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    with np.errstate(all="ignore"):
        return np.where(norms > 0, rows / norms, rows.shape[-1] ** -0.5)


def thresholded(x, weight):
    return np.sign(x) * np.maximum(np.abs(x) - weight, 0)


STEP = 0.5
MAPS = {
    "box": (prox.box(-1, 0.25), np.clip(X, -1, 0.25), "blocked"),
    "nonnegative": (prox.nonnegative(), np.maximum(X, 0), "blocked"),
    "l1": (prox.l1(0.75), thresholded(X, STEP * 0.75), "blocked"),
    "l1 by element": (prox.l1(WEIGHTS), thresholded(X, STEP * WEIGHTS), "blocked"),
    "l2_ball": (prox.l2_ball(2.0), X * 2 / np.linalg.norm(X), "l2_ball computes with all elements"),
    "l2_ball, inside": (prox.l2_ball(50.0), X, "l2_ball computes with all elements"),
    "simplex": (prox.simplex(), onto_simplex(X, 1.0), "simplex computes with all elements"),
    "simplex of 3": (prox.simplex(3), onto_simplex(X, 3.0), "simplex computes with all elements"),
    "unit_rows": (prox.unit_rows(), onto_spheres(X), "unit_rows computes with all elements"),
    "real_part": (prox.real_part(), X, "blocked"),
    "magnitude": (prox.magnitude(2.0), np.where(X < 0, -2.0, 2.0), "blocked"),
    "magnitude by element": (prox.magnitude(WEIGHTS), np.where(X < 0, -WEIGHTS, WEIGHTS), "blocked"),
}
LIKE_ANOTHER = ("nonnegative", "l2_ball, inside", "simplex of 3", "magnitude", "real_part")
maps = pytest.mark.parametrize(
    ("one", "want", "place"),
    [pytest.param(*MAPS[name], id=name, marks=[pytest.mark.row_of_numpy] * (name in LIKE_ANOTHER)) for name in MAPS],
)


@maps
def test_a_map_is_a_function_of_an_array_and_what_comes_after_a_step(backend, one, want, place):
    """In an optimizer the step is the rate of the step; the array that goes in is where the rule ends."""
    tolerance = 1e-13 if backend.widest == "float64" else 1e-6
    x = backend.array(X)
    assert np.allclose(backend.numpy(one(backend.xp, x, STEP)), want, rtol=tolerance, atol=tolerance)
    assert np.array_equal(backend.numpy(x), X)
    start = X + STEP  # a step of SGD from here ends at X
    opt = SGD(lr=STEP, prox=one)
    params = opt.update_all({"W": backend.array(start)}, {"W": backend.array(np.ones_like(X))})
    if type(one) in (prox.box, prox.nonnegative):  # and a gradient does not push through a bound
        assert opt.explain(params) == SGD(bounds=(one.transform().low, one.transform().high)).explain(params)
    assert np.allclose(backend.numpy(params["W"]), want, rtol=tolerance, atol=tolerance)
    assert params["W"].dtype == x.dtype


@pytest.mark.any_engine
@on_numpy
@maps
def test_elementwise_maps_fuse_and_the_others_say_why_not(backend, one, want, place):
    with xpopt.engine("blocked"):  # else it would be machine code where an earlier test has compiled some
        (row,) = SGD(prox=one).explain([X])
    assert row.reason.startswith(place) if row.engine == "eager" else row.engine == place


@on_numpy
@pytest.mark.parametrize(("name", "dtype"), [("l1", "float16"), ("l1 by element", "float64"), ("magnitude", "float32")])
def test_engines_have_the_bits_of_eager(backend, fused, name, dtype):
    one = MAPS[name][0]
    rng, ends = np.random.default_rng(1), []
    start, grads = rng.normal(size=(4, 4)).astype(dtype), rng.normal(size=(5, 4, 4)).astype(dtype)
    for engine in ("eager", fused):
        opt, params = Adam(lr=0.25, prox=one), {"W": start}
        with xpopt.engine(engine):
            for grad in grads:
                params = opt.update_all(params, {"W": grad})
            assert opt.explain(params)[0].engine == engine
        ends.append({**params, "cache": opt.cache})
    assert same_bits(*ends)


def host(backend, x):
    """The values of a complex array."""
    x = backend.computed(x)
    return np.from_dlpack(x) if backend.library == "array_api_strict" else np.asarray(x)


def complex_of(rng, shape=(3, 4)):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.mark.any_engine
def test_of_complex_elements(backend):
    """The modulus shrinks, is set, or is part of a norm; the phase stays."""
    z = complex_of(np.random.default_rng(2))
    phase = z / np.abs(z)
    z[0, 0], phase[0, 0] = 0, 1
    for one, want in {
        prox.l1(0.5): np.maximum(np.abs(z) - 0.5, 0) * phase,
        prox.magnitude(2.0): 2 * phase,
        prox.magnitude(np.abs(z) + 1): (np.abs(z) + 1) * phase,
        prox.real_part(): z.real + 0j,
        prox.l2_ball(1.0): z / np.linalg.norm(z),
        prox.unit_rows(): z / np.linalg.norm(z, axis=-1, keepdims=True),
    }.items():
        for dtype, tolerance in (("complex64", 1e-6), ("complex128", 1e-14))[: 1 + (backend.widest == "float64")]:
            x = backend.xp.asarray(z.astype(dtype))
            got = one(backend.xp, x)
            assert got.dtype == x.dtype
            assert np.allclose(host(backend, got), want, rtol=tolerance, atol=tolerance), one
    with pytest.raises(TypeError, match="simplex takes real numbers, and x has dtype complex"):
        prox.simplex()(backend.xp, backend.xp.asarray(z))
    with pytest.raises(TypeError, match="box takes real numbers, and x has dtype complex"):
        prox.box(0, 1)(backend.xp, backend.xp.asarray(z))


MODULI = np.linspace(0, 2, 12).reshape(3, 4)
OF_COMPLEX = {
    "l1": (prox.l1(0.5), lambda z: np.maximum(np.abs(z) - 0.125, 0) * z / np.abs(z)),
    "l1 by element": (prox.l1(MODULI), lambda z: np.maximum(np.abs(z) - 0.25 * MODULI, 0) * z / np.abs(z)),
    "magnitude": (prox.magnitude(MODULI), lambda z: MODULI * z / np.abs(z)),
    "real_part": (prox.real_part(), lambda z: z.real + 0j),
    "l2_ball": (prox.l2_ball(1.0), lambda z: z / np.linalg.norm(z)),
    "unit_rows": (prox.unit_rows(), lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True)),
    "function": (lambda xp, z: z * 1j, lambda z: z * 1j),
}


@pytest.mark.any_engine
@pytest.mark.parametrize(("one", "want"), OF_COMPLEX.values(), ids=OF_COMPLEX)
def test_complex_parameters_are_mapped_whole(backend, one, want):
    """Not their two parts; by rules that return the map's result, as FISTA does in its first step."""
    rng = np.random.default_rng(6)
    z, g = complex_of(rng), complex_of(rng)
    wide = backend.widest == "float64"
    z, g = (backend.xp.asarray(x.astype("complex128" if wide else "complex64")) for x in (z, g))
    after = host(backend, z) - 0.25 * host(backend, g)
    tolerance = 1e-13 if wide else 1e-5
    for make in (SGD, FISTA):
        opt = make(lr=0.25, prox=one)
        new = opt.update_all({"z": z}, {"z": g})["z"]
        assert new.dtype == z.dtype
        assert np.allclose(host(backend, new), want(after), rtol=tolerance, atol=tolerance)
    residual = (host(backend, z) - host(backend, opt.prox(backend.xp, z - 0.25 * g, 0.25))) / 0.25
    got = opt.stationarity({"z": z}, {"z": g}, step=0.25)
    assert np.isclose(float(backend.numpy(got)), np.linalg.norm(residual), rtol=1e-5)


@on_numpy
@pytest.mark.parametrize(("one", "want"), OF_COMPLEX.values(), ids=OF_COMPLEX)
def test_complex_parameters_are_mapped_where_gradients_accumulate(one, want):
    rng = np.random.default_rng(8)
    z, g = complex_of(rng), complex_of(rng)
    opt, x = SGD(lr=0.25, prox=one, accumulate=2), z
    for share in (0.5, 1.5):
        x = opt.update(x, share * g, "z")
        assert np.allclose(x, z if share < 1 else want(z - 0.25 * g), rtol=1e-13, atol=1e-13)


@pytest.mark.any_engine
def test_what_has_no_meaning_for_complex_parameters():
    z = complex_of(np.random.default_rng(7))
    for one, message in {
        prox.simplex(): r"prox=simplex\(total=1.0\) takes real numbers, and 'z' is complex128; exclude it by groups",
        prox.box(0, 1): r"bounds=\(0.0, 1.0\): complex numbers have no order, and 'z' is complex128",
        prox.l1(1, metric=True): "the two parts of a complex number have different rates, and 'z' is complex128",
    }.items():
        opt = Adam(prox=one)
        for call in (lambda opt=opt: opt.update(z, z, "z"), lambda opt=opt: opt.stationarity({"z": z}, {"z": z})):
            with pytest.raises(TypeError, match=message):
                call()
        assert opt.cache == {}


@pytest.mark.any_engine
@on_numpy
def test_elements_of_any_size():
    """What is finite stays so, and what is not finite in one part of a number leaves the other alone."""
    large, small = 2.0**1023, 2.0**-1073
    z = np.array([large + large * 1j, small * 1j, 0])
    unit = np.array([(1 + 1j) / np.sqrt(2), 1j, 1])
    for opt in (SGD(lr=1.0, prox=prox.magnitude(2.0)), SGD(lr=1.0, prox=prox.l1(1.0)), SGD(prox=prox.l2_ball(3.0))):
        want = {"magnitude": 2 * unit, "l1": [z[0], 0, 0], "l2_ball": [3 * unit[0], 0, 0]}[type(opt.prox).__name__]
        for got in (opt.prox(np, z), opt.update(z, 0 * z, "z")):
            assert np.allclose(got, want, rtol=1e-14, atol=0)
    rows = prox.unit_rows()(np, z[:, None])
    assert np.allclose(rows[:, 0], unit, rtol=1e-15)
    small32 = np.array([2.0**-148 * 1j, 1], "complex64")
    assert SGD(prox=prox.magnitude(1.0)).update(small32, 0 * small32, "z").tolist() == [1j, 1]
    parts = prox.l1(1.0)(np, np.array([complex(np.inf, 3), complex(5, np.nan), complex(2, -0.0)]))
    assert np.array_equal(parts.real, [np.inf, 5, 1])
    assert np.array_equal(parts.imag, [3, np.nan, 0], equal_nan=True)
    assert np.signbit(parts.imag[2])
    assert np.array_equal(
        prox.simplex()(np, np.array([[1e17, 1e17, 0], [1e308, -1e308, 0]])), [[0.5, 0.5, 0], [1, 0, 0]]
    )
    halves = prox.unit_rows()(np, np.ones((1, 100000), np.float16)).astype(np.float64)
    assert abs(np.linalg.norm(halves) - 1) < 2.0**-11


@pytest.mark.backends("numpy", "torch", "jax")
def test_a_simplex_far_away(backend):
    """Of float32, whose sums of large numbers know nothing of the total."""
    x = cast(np.array([[1e5, 1e5 + 0.25, 99999.75], [1e8, 1e8, 0]]), "float32")
    got = backend.numpy(prox.simplex()(backend.xp, backend.array(x, dtype="float32")))
    assert np.allclose(got, onto_simplex(x.astype(np.float64), 1.0), rtol=1e-6, atol=1e-7)


@pytest.mark.any_engine
def test_what_a_map_is_not_called_with():
    for call, message in {
        lambda: prox.l1(1.0)(np, [1.0, 2.0]): r"l1: x is a list; wanted an array of floats, such as numpy.asarray\(x\)",
        lambda: prox.nonnegative()(np, 3.0): "nonnegative: x is a float; wanted an array of floats",
        lambda: prox.l2_ball(1.0)(np, np.array([3, 4])): "l2_ball: x has dtype int64; convert it to one of float16",
        lambda: prox.l1(WEIGHTS[0, :2])(np, np.ones(3)): r"weight is an array of shape \(2,\), and x has shape \(3,\)",
        lambda: prox.l1(1.0)(np, np.ones(3), step=-1): r"l1: step=-1.0 is out of range; wanted a finite number in \[0",
    }.items():
        with pytest.raises((TypeError, ValueError), match=message):
            call()


@pytest.mark.backends("numpy", "numpy-readonly", "array-api-strict", "torch", "dask")
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0), (1, 3, 2)], ids=str)
@pytest.mark.parametrize("one", [prox.l2_ball(0.5), prox.simplex(), prox.unit_rows(), prox.l1(0.5)], ids=str)
def test_any_shape(backend, one, shape):
    x = backend.array(np.full(shape, 3.0))
    got = SGD(lr=1.0, prox=one).update(x, backend.array(np.zeros(shape)), "W")
    assert tuple(got.shape) == shape
    values = backend.numpy(got)
    if not values.size:
        return
    rows = values.reshape(-1, shape[-1] if shape else 1)
    for size, measured in (
        (prox.simplex(), rows.sum(axis=-1)),
        (prox.unit_rows(), np.linalg.norm(rows, axis=-1)),
    ):
        if one == size:
            assert np.allclose(measured, 1.0, rtol=1e-6)
    if one == prox.l2_ball(0.5):
        assert np.isclose(np.linalg.norm(values), 0.5, rtol=1e-6)


@pytest.mark.any_engine
@on_numpy
@pytest.mark.parametrize("one", [made for made, *_ in MAPS.values()], ids=MAPS)
def test_what_is_not_a_number_stays(one):
    """Where it is, and where a norm or a sum has it."""
    x = np.array(X)
    x[0, 1] = np.nan
    for engine in ("eager", "auto"):
        with xpopt.engine(engine):
            assert np.isnan(SGD(lr=1.0, prox=one).update(x, np.zeros_like(x), "W")[0, 1])


# The rate that a threshold has


def test_the_threshold_is_times_the_rate_of_the_step(backend):
    """Of the schedule, times a factor on it; of a group, its own; of each element, where the factor is an array."""
    ones, zeros = backend.array([1.0, -1.0]), backend.array([0.0, 0.0])
    opt = SGD(
        lr_scheduler="ExponentialScheduler(initial_lr=0.5, stage_length=1, staircase=True, decay=0.5)",
        lr_scale=0.5,
        prox=prox.l1(1.0),
        groups={"b": {"lr": 0.125, "prox": prox.l1(2.0)}, "c": {"prox": None}, "d": {"lr_scale": np.array([0.0, 1.0])}},
    )
    params = dict.fromkeys("abcd", ones)
    new = opt.update_all(params, dict.fromkeys("abcd", zeros))
    for name, size in {"a": 0.75, "b": 0.875, "c": 1.0}.items():
        assert backend.numpy(new[name]).tolist() == [size, -size]
    assert backend.numpy(new["d"]).tolist() == [1.0, -0.5]
    new = opt.update_all(new, dict.fromkeys("abcd", zeros))
    assert backend.numpy(new["a"]).tolist() == [0.625, -0.625]


@pytest.mark.any_engine
@on_numpy
@pytest.mark.parametrize(("optimizer", "engine"), [(Adam, "eager"), (xpopt.AdamW, "auto"), (xpopt.AMSGrad, "auto")])
def test_in_adams_metric_the_minimum_of_the_sum_stays(optimizer, engine):
    """Least squares with an L1 penalty: zero is in the subgradient. With the rate as the step it is elsewhere."""
    rng = np.random.default_rng(3)
    A, b, weight = rng.normal(size=(20, 6)), rng.normal(size=20), 5.0
    found = {}
    for metric in (False, True):
        opt, x = optimizer(lr=0.01, prox=prox.l1(weight, metric=metric), weight_decay=0), np.zeros(6)
        with xpopt.engine(engine):
            for _ in range(1200):
                x = opt.update(x, A.T @ (A @ x - b), "x")
        grad = A.T @ (A @ x - b)
        at_zero, elsewhere = np.maximum(np.abs(grad) - weight, 0), np.abs(grad + weight * np.sign(x))
        found[metric] = np.max(np.where(x == 0, at_zero, elsewhere))
    assert np.any(x != 0)
    assert np.any(x == 0)
    assert found[True] < 1e-6 < 0.1 < found[False]


def test_in_adams_metric_each_element_has_its_own_step():
    """Of the first step: the rate over the size of the gradient."""
    grad = np.array([2.0, -0.5])
    for place in ("corrected", "uncorrected"):
        opt = Adam(lr=0.25, eps=1e-12, prox=prox.l1(0.125, metric=True), eps_place=place)
        got = opt.update(np.ones(2), grad, "W")
        assert np.allclose(got, [0.75 - 0.25 * 0.125 / 2, 1.25 - 0.25 * 0.125 / 0.5], rtol=1e-9)
    message = r"SGD.plain_rule does not divide by the magnitude of gradients, so l1 .* for metric=True; leave it out"
    with pytest.raises(ValueError, match=message):
        SGD(prox=prox.l1(0.1, metric=True))


# What rounding leaves


@pytest.mark.any_engine
@on_numpy
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("options", [{}, {"master": True}, {"rounding": "stochastic"}], ids=str)
def test_no_rounding_leads_out_of_a_ball(backend, dtype, options):
    if dtype not in backend.dtypes:
        pytest.skip(f"NumPy has no {dtype} here")
    rng = np.random.default_rng(4)
    for radius, size in ((1.0, 400), (0.37, 7), (30.0, 1000), (2e-3, 3000)):
        opt, x = SGD(lr=1.0, prox=prox.l2_ball(radius), **options), cast(rng.normal(size=size), dtype)
        for _ in range(4):
            x = opt.update(x, cast(rng.normal(size=size), dtype), size)
            norm = np.linalg.norm(x.astype(np.float64))
            assert norm <= radius
        if radius >= 0.37:
            assert norm >= radius * (1 - {"bfloat16": 2.0**-5}.get(dtype, 2.0**-8))


@pytest.mark.any_engine
@on_numpy
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_simplex_is_left_by_rounding_alone(backend, dtype):
    if dtype not in backend.dtypes:
        pytest.skip(f"NumPy has no {dtype} here")
    x = cast(np.random.default_rng(5).normal(size=(8, 100)), dtype)
    got = SGD(lr=1.0, prox=prox.simplex()).update(x, cast(np.zeros((8, 100)), dtype), "W").astype(np.float64)
    assert np.all(got >= 0)
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}[dtype]
    assert np.all(np.abs(got.sum(axis=-1) - 1) <= 1.01 * unit + 100 * 2.0**-25 * (dtype == "float16"))


# Intervals


def rule_of(opt):
    return opt._parts.settings.rule


@pytest.mark.any_engine
def test_an_interval_is_the_bounds():
    """One rule, whichever way it is said, so that momentum does not wind up at it."""
    for given in ({"bounds": prox.box(0, 1)}, {"prox": prox.box(0, 1)}, {"bounds": "box(low=0, high=1)"}):
        assert rule_of(Adam(**given)) is rule_of(Adam(bounds=(0, 1)))
        assert Adam(**given).hyperparameters in (
            Adam(bounds=(0, 1)).hyperparameters,
            {**Adam().hyperparameters, "prox": "box(low=0.0, high=1.0)"},
        )
    assert Adam(bounds=prox.nonnegative).bounds == (0.0, None)
    assert Adam(bounds=prox.box()).bounds is None
    opt, x = SGD(lr=0.25, momentum=0.5, prox=prox.nonnegative), np.zeros(1)
    for _ in range(10):
        x = opt.update(x, np.ones(1), "W")
    assert (x.tolist(), opt.cache["W"].tolist()) == ([0.0], [0.0])


# A function of the user's own


@pytest.mark.any_engine
def test_a_function_is_called_once_for_each_parameter_with_its_library(backend):
    seen = []

    def halved(xp, x):
        seen.append((xp, tuple(x.shape)))
        return x * xp.ones_like(x) * 0.5

    opt = SGD(lr=1.0, prox=halved)
    params = {"W": backend.array([[4.0, 2.0]]), "b": backend.array([1.0])}
    new = opt.update_all(params, {name: x * 0 for name, x in params.items()})
    assert backend.numpy(new["W"]).tolist() == [[2.0, 1.0]]
    assert [shape for _, shape in seen] == [(1, 2), (1,)]
    assert {row.reason for row in opt.explain(params)} <= {
        "prox is a function, which engines cannot fuse",
        f"no engine fuses updates of {backend.library} arrays",
    }
    assert len(seen) == 2


@pytest.mark.any_engine
def test_what_a_function_returns_is_like_the_parameter():
    z = np.ones(2) * 1j
    for wrong, x, message in (
        (
            lambda xp, x: x[:1],
            np.ones(2),
            r"returned a ndarray of float64 and shape \(1,\); wanted an array like x, of",
        ),
        (lambda xp, x: 0.0, np.ones(2), r"returned a float; wanted an array like x, of float64 and shape \(2,\)"),
        (lambda xp, x: None, np.ones(2), "returned a NoneType"),
        (
            lambda xp, x: xp.real(x),
            z,
            r"returned .* float64 .*; wanted an array like x, of complex128 and shape \(2,\)",
        ),
        (lambda x: x, np.ones(2), "takes 1 positional argument"),
    ):
        opt = SGD(prox=wrong)
        with pytest.raises(TypeError, match=message) as caught:
            opt.update(x, x, "W")
        assert opt.cache == {}
        text = "\n".join([str(caught.value), *caught.value.__notes__])
        assert "prox=test_prox.test_what_a_function" in text
        assert "in the update of 'W'" in text


@pytest.mark.backends("numpy", "torch")
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_memory_that_a_function_keeps_is_its_own(backend, dtype):
    """One that writes into the same array each time, as `out=` of NumPy is for."""
    kept = backend.xp.zeros(2, dtype=getattr(backend.xp, dtype))

    def doubled_into(xp, x):
        kept[...] = 2 * x
        return kept

    params = {name: backend.xp.asarray(np.array(x, dtype)) for name, x in {"a": [1, 2], "b": [5, 6]}.items()}
    zeros = {name: 0 * x for name, x in params.items()}
    opt = FISTA(prox=doubled_into)
    new = opt.update_all(params, zeros)
    assert [host(backend, x).real.tolist() for x in (new["a"], new["b"])] == [[2, 4], [10, 12]]
    assert [host(backend, x).real.tolist() for x in opt.averaged(new).values()] == [[2, 4], [10, 12]]
    mapped = prox.real_part()(backend.xp, params["a"])
    mapped[...] = 0
    assert host(backend, params["a"]).real.tolist() == [1, 2]


def doubled(xp, x):
    return 2 * x


@pytest.mark.any_engine
def test_a_function_is_kept_by_copies_and_by_checkpoints_of_the_same_one():
    opt = SGD(lr=1.0, prox=doubled, groups={"b": {"prox": doubled}})
    params = {"W": np.ones(2), "b": np.ones(1)}
    opt.update_all(params, params)
    assert str(opt).count("prox=function(call=") == 1
    twin = SGD(prox=doubled, groups={"b": {"prox": doubled}})
    twin.load_state_dict(json.loads(json.dumps(opt.state_dict())))
    for one in (opt.copy(), pickle.loads(pickle.dumps(opt)), twin):
        new = one.update_all(params, {name: 0.5 * x for name, x in params.items()})
        assert [x.tolist() for x in new.values()] == [[1.0, 1.0], [1.0]]
    message = r"prox=function\(call='.*doubled'\) is text that stands for a function, .*; pass the function"
    with pytest.raises(ValueError, match=message):
        xpopt.make_optimizer(str(SGD(prox=doubled)))
    with pytest.raises(xpopt.CheckpointError, match=message):
        SGD().load_state_dict(opt.state_dict())


# Text and errors


@pytest.mark.any_engine
@pytest.mark.parametrize("one", [made for made, *_ in MAPS.values()], ids=MAPS)
def test_a_map_is_a_value_that_text_and_checkpoints_have(one):
    opt = Adam(prox=one)
    opt.update(X, X, "W")
    ways = [opt.copy(), xpopt.make_optimizer(opt.hyperparameters), Adam()]
    ways[-1].load_state_dict(opt.state_dict())
    if "by element" not in str(one) and "PerElement" not in str(one):
        ways.append(xpopt.make_optimizer(str(opt)))
    for other in ways:
        assert other.prox == one
        assert rule_of(other) is rule_of(opt)
    opt.set_params({"prox": None})
    assert rule_of(opt) is rule_of(Adam())


@pytest.mark.any_engine
def test_files_hold_the_arrays_of_a_map(tmp_path):
    pytest.importorskip("safetensors")
    opt = SGD(lr=0.5, prox=prox.l1(WEIGHTS), groups={"b": {"prox": prox.magnitude(np.array([1.0, 3.0]))}})
    params = {"W": X, "b": np.array([-1.0, 2.0])}
    opt.update_all(params, params)
    opt.save(tmp_path / "opt.safetensors")
    again = xpopt.load_optimizer(tmp_path / "opt.safetensors")
    assert again.prox == prox.l1(WEIGHTS)
    assert same_bits(again.update_all(params, params), opt.update_all(params, params))
    assert again.update_all(params, params)["b"].tolist() == [-1.0, 3.0]


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bounds": (0, 1), "prox": "l1(weight=1)"}, r"bounds=\(0.0, 1.0\) and prox=l1\(.*\) are two projections"),
        ({"prox": 0.1}, r"prox=0.1 is a float; wanted a map of xpopt.prox, such as l1\(0.1\), a function of \(xp, x\)"),
        ({"prox": prox.l1}, "prox: l1 needs weight, which has no default"),
        ({"prox": "l3(weight=1)"}, "prox: unknown transform 'l3'"),
        ({"prox": xpopt.EMA(0.9)}, r"prox: EMA\(.*\) is a EMA; wanted a map of xpopt.prox"),
        ({"prox": "l1(weight=-1)"}, r"prox: l1: weight=-1.0 is out of range; wanted a finite number in \[0, inf\)"),
        ({"prox": "l2_ball(radius=0)"}, r"l2_ball: radius=0.0 is out of range; wanted a finite number in \(0, inf\)"),
        ({"prox": "simplex(total=-1)"}, "simplex: total=-1.0 is out of range"),
        ({"prox": "box(low=1, high=0)"}, "prox: box: low=1.0 is above high=0.0"),
        ({"prox": SGD}, "wanted a map of xpopt.prox, such as"),
        (
            {"bounds": (0, 1), "groups": {"a": {"prox": "l1(weight=1)"}}},
            r"a group .* takes {'bounds': None, 'prox': ...}",
        ),
        ({"prox": "magnitude(modulus=-1)"}, "magnitude: modulus=-1.0 is out of range"),
        ({"bounds": prox.l1(1)}, r"bounds=l1\(.*\) is not an interval; pass it as prox=l1\("),
        ({"bounds": (0, 1j)}, "high end of bounds=1j is a complex; wanted a finite number"),
        ({"transforms": [prox.l1(1)]}, "l1 is an option of its own; give it as prox="),
    ],
    ids=str,
)
def test_what_is_no_map(options, message):
    opt = Adam()
    for make in (lambda: Adam(**options), lambda: opt.set_params(options)):
        with pytest.raises((ValueError, TypeError), match=message):
            make()
    assert opt.hyperparameters == Adam().hyperparameters


@pytest.mark.any_engine
def test_a_modulus_of_another_shape():
    opt = SGD(prox=prox.magnitude(np.ones((2, 3))))
    message = r"SGD: prox: modulus is an array of shape \(2, 3\), and 'W' has shape \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        opt.update(np.ones((3, 2)), np.ones((3, 2)), "W")
    assert opt.cache == {}


@pytest.mark.any_engine
def test_a_modulus_above_the_dtype():
    opt, x = SGD(prox=prox.magnitude(np.array([1.0, 1e5]))), np.ones(2, np.float16)
    with pytest.raises(
        ValueError, match=r"prox=magnitude\(.*the largest number of float16, the dtype of 'W', is 65504"
    ):
        opt.update(x, x, "W")
    assert opt.update(x.astype(np.float32), x, "W").tolist() == [1.0, 1e5]


@pytest.mark.any_engine
def test_a_map_of_all_elements_has_no_kernel():
    with pytest.raises(TypeError, match="Adam has no kernel: simplex computes with all elements"):
        xpopt.explain.kernel_source(Adam(prox=prox.simplex))
    with pytest.raises(ValueError, match=r"dtype='complex64' is unknown; wanted .* float64, that of its parts"):
        xpopt.explain.kernel_source(Adam(), dtype="complex64")


# How far from a minimum


@pytest.mark.any_engine
def test_the_proximal_gradient_vanishes_at_the_minimum_alone(backend):
    """Of a sum of squares in a box: the residual has a closed form."""
    low, high = 0.0, 1.0
    x, bottom = np.array([0.0, 1.0, 0.25, 0.0, 0.5]), np.array([-3.0, 2.0, 0.25, 0.5, 4.0])
    for one in (prox.box(low, high), prox.box(np.zeros(5), 1)):
        opt = Adam(prox=one)
        for step in (1.0, 0.25):
            got = opt.stationarity({"x": backend.array(x)}, {"x": backend.array(x - bottom)}, step=step)
            want = np.linalg.norm(x - np.clip(x - step * (x - bottom), low, high)) / step
            assert type(got) is type(backend.array(np.zeros(())))
            assert np.isclose(float(backend.numpy(got)), want, rtol=1e-6)
        at = np.clip(bottom, low, high)
        assert float(backend.numpy(opt.stationarity([backend.array(at)], [backend.array(at - bottom)]))) == 0.0
    penalized = SGD(prox=prox.l1(2.0))
    grads = [backend.array([1.5, -2.0, -1.0]), None]
    assert float(backend.numpy(penalized.stationarity([backend.array([0.0, 1.0, 0.0]), 3.0], grads))) == 0.0


@pytest.mark.any_engine
def test_the_gradient_is_that_of_the_function_which_options_say():
    x, grad = np.array([3.0, -4.0]), np.array([0.0, 8.0])
    assert float(SGD().stationarity([x], [grad])) == 8.0
    assert float(SGD(l2=2.0).stationarity([x], [grad])) == 6.0
    assert float(SGD(loss_scale=4.0, clip_norm=0.1, weight_decay=0.1).stationarity([x], [grad])) == 2.0
    for maximize, want in ((False, 0.0), (True, 1.0)):
        opt = SGD(bounds=(0, None), maximize=maximize)
        assert float(opt.stationarity({"x": np.zeros(1)}, {"x": np.ones(1)})) == want
    both = SGD(groups={"frozen": "freeze", "free": {"bounds": None}}, bounds=(0, None))
    ones = {"frozen": np.ones(1), "free": np.zeros(1), "bound": np.zeros(1)}
    assert float(both.stationarity(ones, {"frozen": None, "free": np.ones(1), "bound": np.ones(1)})) == 1.0
    assert float(SGD().stationarity({}, {})) == 0.0


def test_a_loss_scale_that_moves(backend):
    """Gradients are divided by what it is, and not by what it was at first."""
    scale = xpopt.transforms.DynamicLossScale(64.0, growth=2.0, every=1)
    opt, x = SGD(lr=0.0, loss_scale=scale, nonfinite="skip"), {"x": backend.array(np.zeros(2))}
    grad = backend.array([3.0, 4.0])
    for _ in range(3):
        grads = {"x": grad * opt.cur_loss_scale}
        assert float(backend.numpy(opt.stationarity(x, grads))) == 5.0
        x = opt.update_all(x, grads)
    assert float(backend.numpy(opt.stationarity(x, {"x": grad * 64}))) == 5.0 / 8


def test_at_a_bound_that_was_rounded_nothing_is_left_to_do():
    opt, x, up = SGD(lr=1.0, bounds=(0, 0.1)), np.full(2, 0.05, np.float16), np.full(2, -1.0, np.float16)
    x = opt.update(x, up, "x")
    assert float(x[0]) < 0.1
    assert float(opt.stationarity({"x": x}, {"x": up})) == 0.0


@pytest.mark.any_engine
@pytest.mark.parametrize(
    ("arguments", "step", "message"),
    [
        (([np.ones(2)], [np.ones(3)]), 1.0, r"gradient of 0 has shape \(3,\), the parameter has \(2,\)"),
        (([np.ones(2)], {"W": np.ones(2)}), 1.0, "grads lacks 0 and has 'W'"),
        ((np.ones(2), np.ones(2)), 1.0, "params is a ndarray; wanted a mapping"),
        (([np.ones(2)], [np.ones(2)]), 0.0, r"SGD: step=0.0 is out of range; wanted a finite number in \(0, inf\)"),
    ],
    ids=str,
)
def test_what_has_no_proximal_gradient(arguments, step, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SGD().stationarity(*arguments, step=step)
