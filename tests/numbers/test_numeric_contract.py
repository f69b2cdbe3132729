"""What the numbers keep: library, dtype, shape, device; the host's float64 for scalars; float32 for 16 bits."""

import math
import warnings

import array_api_compat
import numpy as np
import pytest
from _kit import oracles, table
from _kit.rows import KINDS, rows
from _kit.trajectories import HAVE_16_BITS, UNIT, low_dtypes, read, verify_low, verify_scalars

import xpopt
from xpopt._graph.trace import trace

CASES = pytest.mark.parametrize("case", rows(table.BY_LABEL, KINDS))
ALONE = pytest.mark.parametrize(
    "case", rows({label: row for label, row in table.BY_LABEL.items() if not row.couples}, KINDS)
)
"""Those of which each element goes a way of its own."""
COUPLED = pytest.mark.parametrize(
    "case", rows({label: row for label, row in table.BY_LABEL.items() if row.couples}, ["LARS"])
)
"""The others."""
SHAPES = [(), (1, 0, 2), (1,), (7, 5)]
QUICK = 0.05  # a rate


def arrays_of(entry):
    return [x for x in entry.values() if not isinstance(x, int)] if isinstance(entry, dict) else [entry]


@CASES
def test_an_element_takes_as_many_divisions_as_it_must(case):
    """Divisions by numbers of the step are products with a number that the host has folded."""
    nodes = trace(case.rule()).arrays()
    assert [node.kind for node in nodes if node.op == "divide"].count("array") == case.divisions


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("t", [1, 2, 10, 1000, 20_000])
def test_one_step_of_adam_errs_by_less_than_six_roundings(backend, t):
    """`step` and its product; `scale` and its product, halved by the root; the root, the sum and the quotient."""
    rng, size = np.random.default_rng(t), 20_000
    gradient, mean, root = (10.0 ** rng.uniform(-6, 3, size) for _ in range(3))
    mean, var = (np.array(x, np.float32) * (t > 1) for x in (mean * rng.choice([-1, 1], size), root**2))
    opt = xpopt.Adam(lr=QUICK)
    opt.set_params(cache_dict={"W": {"t": t - 1, "mean": mean, "var": var}})
    new = opt.update(np.zeros(size, np.float32), gradient.astype(np.float32), "W").astype(np.float64)
    mean, var = (x.astype(np.float64) for x in (opt.cache["W"]["mean"], opt.cache["W"]["var"]))
    want = -QUICK * (mean / (1 - 0.9**t)) / (np.sqrt(var / (1 - 0.999**t)) + 1e-7)
    assert np.max(np.abs(new / want - 1)) <= 6 * UNIT["float32"]


@pytest.mark.parametrize("case", [table.BY_LABEL[label] for label in KINDS], ids=str)
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_results_and_slots_are_like_the_parameter(backend, case, clip_norm):
    """To the device, on every library; on NumPy all other rows have the checks in tests/testing."""
    for dtype in backend.dtypes:
        opt = case.make(clip_norm=clip_norm)
        compute = backend.dtype("float32" if dtype in ("float16", "bfloat16") else dtype)
        for shape in SHAPES:
            param = backend.array(np.full(shape, 0.5), dtype)
            for _ in range(2):
                new = opt.update(param, backend.array(np.full(shape, -2.0), dtype), shape)
                assert type(new) is type(param)
                assert array_api_compat.array_namespace(new) is array_api_compat.array_namespace(param)
                assert new.dtype == param.dtype == backend.dtype(dtype)
                assert tuple(new.shape) == shape
                assert array_api_compat.device(new) == array_api_compat.device(param)
                slots = arrays_of(opt.cache[shape]) if shape in opt.cache and case.slots else []
                for slot, own in zip(slots, case.rule().shapes(shape), strict=True):
                    assert type(slot) is type(param)
                    assert slot.dtype == compute
                    assert tuple(slot.shape) == own
                    assert array_api_compat.device(slot) == array_api_compat.device(param)
                param = new


@CASES
@HAVE_16_BITS
@pytest.mark.any_width
def test_16_bits_are_computed_in_32_and_rounded_once(backend, case):
    for dtype in low_dtypes(backend):
        verify_low(backend, case, dtype)


@HAVE_16_BITS
def test_16_bits_hold_what_overflows_and_underflows_in_them(backend):
    """A gradient of 6e4 has a square, and one of 1e-4 a variance, that float16 has no number for."""
    for dtype in low_dtypes(backend):
        gradient = backend.array([6e4, 1e-4, -6e4], dtype)
        held = read(backend, gradient).tolist()
        opt = xpopt.AdaGrad(lr=1.0, eps=1e-7)
        new = read(backend, opt.update(backend.array([0.0, 0.0, 0.0], dtype), gradient, "W"))
        # 1e-4 / (1e-4 + eps) is 0.999
        assert np.all(np.abs(new - [-1.0, -1.0, 1.0]) <= 0.001 + oracles.ulp(0.5, dtype))
        total = read(backend, opt.cache["W"])
        assert np.all(np.abs(total / np.square(held) - 1) <= 2 * UNIT["float32"])


@pytest.mark.parametrize("decay", [0.999, 0.9999, 1 - 1e-7, 1 - 1e-9])
@pytest.mark.parametrize("label", ["RMSProp", "Adam"])
def test_scalars_are_folded_in_float64(backend, label, decay):
    """In float32, 1 - 0.999 is off by 1e-5, and 1 - (1 - 1e-9) is 0."""
    verify_scalars(backend, table.BY_LABEL[label], decay)


@CASES
def test_numpy_numbers_promote_nothing(backend, case):
    settings = {key: np.float64(value) for key, value in case.arguments.items()}
    plain = case.make(lr=QUICK, clip_norm=0.5)
    numpyish = case.make(lr=np.float64(QUICK), **settings, clip_norm=np.float64(0.5))
    scheduled = case.make(
        **settings, clip_norm=0.5, lr_scheduler=xpopt.ExponentialScheduler(np.float64(QUICK), decay=np.float64(1.0))
    )
    results = []
    for opt in (plain, numpyish, scheduled):
        param = backend.array([0.5, -2.0], "float32")
        for _ in range(2):
            param = opt.update(param, backend.array([1.0, 3.0], "float32"), "W")
            opt.step()
        assert param.dtype == backend.dtype("float32")
        assert all(x.dtype == backend.dtype("float32") for x in arrays_of(opt.cache["W"]) if case.slots)
        results.append(read(backend, param).tolist())
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("decay", [0.0, 1e-200, 1e-300])
def test_decays_that_underflow(backend, decay):
    """`decay**t` is 0 in float64 from the second step on, and the decay itself is 0 in float32."""
    settings = {"decay1": decay, "decay2": decay, "eps": 1e-7}
    for dtype in {"float32", backend.widest}:
        opt = xpopt.Adam(lr=QUICK, **settings)
        param, held, memory = backend.array([0.25], dtype), 0.25, None
        for t, gradient in enumerate([1.0, -3.0, 0.5], start=1):
            gradient_array = backend.array([gradient], dtype)
            with np.errstate(all="raise"):
                param = opt.update(param, gradient_array, "W")
            held, memory = oracles.adam(held, gradient, memory, t, QUICK, **settings)
            assert abs(float(read(backend, param)[0]) - held) <= 8 * UNIT[dtype]


@pytest.mark.parametrize("t", [10**6, 10**9, 2**31 - 1, 2**31, 2**32, 2**53])
def test_a_huge_count(backend, t):
    """The corrections have long become 1, and the count fits no int32."""
    opt = xpopt.Adam(lr=QUICK, eps=1e-7)
    for dtype in {"float32", backend.widest}:
        mean, var = backend.array([0.5, -0.125], dtype), backend.array([4.0, 0.5], dtype)
        opt.set_params(cache_dict={"W": {"t": t, "mean": mean, "var": var}})
        param = opt.update(backend.array([0.25, 1.0], dtype), backend.array([1.0, -2.0], dtype), "W")
        for i, (p, g, memory) in enumerate([(0.25, 1.0, (0.5, 4.0)), (1.0, -2.0, (-0.125, 0.5))]):
            want, _ = oracles.adam(p, g, memory, t + 1, QUICK, 0.9, 0.999, 1e-7)
            assert abs(float(read(backend, param)[i]) - want) <= 8 * UNIT[dtype]
        assert opt.cache["W"]["t"] == t + 1
        del opt.cache["W"]


HARSH = {
    "float32": [0.0, 1e-38, -1e-30, 1e38, -3e38, math.inf, -math.inf, math.nan, 1.0],
    "float64": [0.0, 1e-307, -1e-200, 1e200, -1.7e308, math.inf, -math.inf, math.nan, 1.0],
}


@CASES
@pytest.mark.parametrize("clip_norm", [None, 1e-3, 1e3])
@pytest.mark.any_width
def test_no_floating_point_error_stops_a_rule(backend, case, clip_norm):
    """Overflow, underflow, 0/0: whatever the caller's settings, nothing is raised and nothing is warned of."""
    for dtype in {"float32", backend.widest}:
        opt = case.make(lr=1e3, clip_norm=clip_norm)
        param = backend.array(HARSH[dtype], dtype)
        gradients = [backend.array(harsh, dtype) for harsh in (HARSH[dtype], HARSH[dtype][::-1])]
        with np.errstate(all="raise"), warnings.catch_warnings():
            warnings.simplefilter("error")
            for gradient in gradients:
                param = opt.update(param, gradient, "W")
        got = read(backend, param)
        assert np.isnan(got[HARSH[dtype].index(math.nan)])


@COUPLED
def test_what_is_not_finite_spoils_the_whole_parameter(backend, case):
    for bad in ([math.nan, 1.0], [1.0, math.nan]):
        opt = case.make()
        param = opt.update(backend.array([0.5, 0.5]), backend.array(bad), "W")
        assert np.isnan(read(backend, param)).all()


@ALONE
def test_what_is_not_finite_stays_where_it_is(backend, case):
    """NaN and infinite gradients spoil their own elements, at once and for good; the others walk on.

    To steps of bounded length, an infinite gradient is a large one.
    """
    bounded = case.signs or case.equation is oracles.adopt
    bad = [math.nan, math.inf, -math.inf]
    for dtype in {"float32", backend.widest}:
        opt = case.make(lr=QUICK)
        param, held, memory = backend.array([0.5] * 5, dtype), [0.5, 0.5], [None, None]
        for t, good in enumerate([(1.0, -2.0), (0.5, 4.0)], start=1):
            gradient = [good[0], *(bad if t == 1 else [1.0, 1.0, 1.0]), good[1]]
            param = opt.update(param, backend.array(gradient, dtype), "W")
            pairs = [
                case.equation(p, g, m, t, QUICK, **case.arguments) for p, g, m in zip(held, good, memory, strict=True)
            ]
            held, memory = [p for p, _ in pairs], [m for _, m in pairs]
            got = read(backend, param)
            assert np.isnan(got[1])
            assert np.isfinite(got[2:4]).tolist() == [bounded, bounded]
            assert np.all(np.abs(got[[0, 4]] - held) <= 8 * t * UNIT[dtype])
    if case.equation in (oracles.sgd, oracles.sgd_momentum):
        assert got[2:4].tolist() == [-math.inf, math.inf]


@ALONE
def test_a_parameter_that_is_not_finite_stays_so(backend, case):
    opt = case.make(lr=QUICK, weight_decay=0.0)  # which takes infinity from infinity
    param = opt.update(backend.array([math.nan, math.inf, -math.inf]), backend.array([1.0, 2.0, -3.0]), "W")
    got = read(backend, param)
    assert math.isnan(got[0])
    if any(spec.start == "param" for spec in case.rule().specs):  # from which it takes infinity
        assert not np.isfinite(got).any()
    else:
        assert got[1:].tolist() == [math.inf, -math.inf]


@CASES
@pytest.mark.any_width
def test_without_a_gradient_nothing_moves(backend, case):
    """A gradient of 0 from the start: 0 / (0 + eps) is 0, and eps is all that keeps it from being NaN."""
    for dtype in backend.dtypes:
        start = read(backend, backend.array([0.1, -3.7, 1e3, 0.0], dtype)).tolist()
        param = backend.array(start, dtype)
        penalties = dict.fromkeys({"l1", "l2"} & set(case.arguments), 0.0)
        opt = case.make(clip_norm=1.0, weight_decay=0.0, **penalties)
        for _ in range(3):
            param = opt.update(param, backend.array([0.0] * 4, dtype), "W")
        assert read(backend, param).tolist() == start


@CASES
def test_a_rate_of_zero_moves_nothing_and_still_learns(backend, case):
    opt = case.make(lr=0.0)
    param = opt.update(backend.array([0.1, -3.7]), backend.array([1.0, 2.0]), "W")
    assert read(backend, param).tolist() == read(backend, backend.array([0.1, -3.7])).tolist()
    if case.equation not in (oracles.sgd, oracles.sgd_momentum):
        each = [case.equation(p, g, None, 1, 0.0, **case.arguments) for p, g in ((0.1, 1.0), (-3.7, 2.0))]
        (_, want), _ = oracles.together(each)
        got = [float(np.ravel(read(backend, x))[0]) for x in arrays_of(opt.cache["W"])]
        assert got == pytest.approx(list(want), rel=4 * UNIT["float32"])
