"""Stochastic rounding: to one of the two neighbours, right on average, and the same again from the same seed."""

import copy
import math
import tracemalloc

import numpy as np
import pytest
from _kit import low_precision
from _kit.low_precision import (
    FLUSHING,
    LARGEST,
    SMALLEST,
    all_numbers,
    key_of,
    nearest,
    neighbours,
    random_bits,
    writes_16_bits,
)
from _kit.rows import KINDS, on_numpy, rows
from _kit.states import OPTIMIZERS, every_optimizer, frozen, model, nothing_changes, same, train
from _kit.trajectories import HAVE_16_BITS, fetch, low_dtypes, read

import xpopt
from xpopt import SGD, Adam, CheckpointError, RMSProp
from xpopt._arrays.namespace import library_of
from xpopt._engine import rounding

pytestmark = HAVE_16_BITS

SIGMAS = 5
RATE = 3 * 2.0**-13  # below 1, a part of what float16 and bfloat16 can tell apart


def stochastic(make=SGD, **settings):
    return make(**settings, rounding="stochastic")


def walk(backend, opt, start, grads, dtype, name="W"):
    """Make a step for each gradient; return the values after each."""
    param, seen = backend.array(start, dtype), []
    for grad in grads:
        param = opt.update(param, backend.array(grad, dtype), name)
        seen.append(read(backend, param))
    return seen


def rounded(values, key, dtype):
    """Exact results for the elements of an array, in C order."""
    flat = np.ravel(values)
    bits = random_bits(key, flat.size)
    found = [low_precision.stochastic(x, b, dtype) for x, b in zip(flat, bits, strict=True)]
    return np.reshape(found, np.shape(values))


# Exact results


@pytest.mark.any_width
@pytest.mark.parametrize(
    "shape", rows({str(s): s for s in [(), (0,), (1,), (7, 5), (2, 1, 3), (4099,)]}, ["(0,)", "(7, 5)"])
)
@pytest.mark.parametrize(("seed", "name"), [(0, "W"), (3, ("enc", 0, "w")), (2**70, None)])
def test_results_are_those_of_the_formula(backend, shape, seed, name):
    """Of the bits that docs/guide/precision.md describes, and arithmetic that is exact."""
    rng = np.random.default_rng(3)
    for dtype in low_dtypes(backend):
        opt = stochastic(lr=2.0**-9, seed=seed)
        param = nearest(rng.normal(size=shape), dtype)
        for t in range(1, 4):
            grad = nearest(rng.integers(-64, 65, shape) / 16, dtype)
            exact = (param - 2.0**-9 * grad).astype(np.float32)
            new = opt.update(backend.array(param, dtype), backend.array(grad, dtype), name)
            assert new.dtype == backend.dtype(dtype)
            assert tuple(new.shape) == shape
            encoded = list(name) if isinstance(name, tuple) else name
            param = read(backend, new)
            assert np.array_equal(param, rounded(exact, key_of(seed, t, encoded), dtype))


@writes_16_bits
@pytest.mark.parametrize("layout", ["F order", "every second"])
def test_the_place_of_an_element_is_that_in_c_order(backend, layout):
    values, grad = np.linspace(-1, 1, 35).reshape(5, 7), np.linspace(0.1, 0.9, 35).reshape(5, 7)

    def laid_out(x, dtype):
        if layout == "every second":
            return backend.array(np.repeat(x, 2, axis=1), dtype)[:, ::2]
        return backend.array(x.T, dtype).T

    for dtype in low_dtypes(backend):
        plain, other = stochastic(seed=4), stochastic(seed=4)
        for _ in range(2):
            want = plain.update(backend.array(values, dtype), backend.array(grad, dtype), "W")
            got = other.update(laid_out(values, dtype), laid_out(grad, dtype), "W")
            assert np.array_equal(read(backend, got), read(backend, want))


EDGES = {
    "float16": [65504.0, 65505.0, 65519.0, 65520.0, 65535.9, 65536.0, 7e4, 3e38, 2.0**-14, 2.0**-14 * (1 - 2.0**-20)],
    "bfloat16": [LARGEST["bfloat16"], LARGEST["bfloat16"] * (1 + 2.0**-10), 3.4028234e38, 2.0**-126, 1.1e-38, 65504.0],
}
for _dtype, _edges in EDGES.items():
    _edges += [0.0, 1.0, 1 - 2.0**-20, 1 + 2.0**-20, 1.99999, 1e-3, 2.0**-30, 1e-10, math.inf, math.nan]
    _edges += [2.0 ** SMALLEST[_dtype] * part for part in (0.25, 0.5, 0.75, 1.0, 1.25, 1022.5)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.any_width
def test_edges_are_rounded_as_exactly(backend, dtype):
    """Zeros of both signs, subnormals, the largest numbers, what is beyond them, and what is not finite."""
    if dtype not in backend.dtypes:
        return
    edges = np.array([sign * x for x in EDGES[dtype] for sign in (1, -1)], np.float32)
    values = backend.array(np.tile(edges.astype(np.float64), 500), "float32")
    library = library_of(values)
    for key in ((1, 2), (-(2**31), 2**31 - 1), (123456789, -987654321)):
        call = library.guard(lambda x, key=key: rounding.round_stochastically(library, x, backend.dtype(dtype), key))
        got = read(backend, call(values))
        want = rounded(np.tile(edges, 500), tuple(word % 2**32 for word in key), dtype)
        assert np.array_equal(got, want, equal_nan=True)
        assert np.array_equal(np.signbit(got) | np.isnan(got), np.signbit(np.tile(edges, 500)) | np.isnan(got))


@pytest.mark.any_width
def test_what_is_a_number_of_the_dtype_stays(backend):
    """All 65536, the sign of zero, infinities and NaN among them; five times, with other bits each time."""
    for dtype in low_dtypes(backend):
        numbers = all_numbers(dtype)
        if backend.library in FLUSHING:
            numbers = numbers[(numbers == 0) | ~(np.abs(numbers) < 2.0**-126)]
        numbers = numbers[~np.isnan(numbers)]
        for got in walk(backend, stochastic(), numbers, [np.zeros(len(numbers))] * 5, dtype):
            assert np.array_equal(got, numbers)
            assert np.array_equal(np.signbit(got), np.signbit(numbers))


def test_wide_parameters_are_rounded_as_ever(backend):
    for dtype in backend.dtypes:
        if dtype in ("float32", "float64"):
            for make in (SGD, Adam):
                start, grads = np.linspace(-1, 1, 99), [np.linspace(0.1, 0.9, 99)] * 3
                got = walk(backend, stochastic(make), start, grads, dtype)
                assert np.array_equal(got, walk(backend, make(), start, grads, dtype))


# Statistics, each with a bound of five standard deviations; of NumPy's, as other libraries draw the same bits

MANY = 200_000


def assert_share(count, chance, size=MANY):
    assert abs(count - size * chance) <= SIGMAS * math.sqrt(size * chance * (1 - chance)), (count / size, chance)


# param, gradient and rate: products and differences are exact in float32
STEPS = {
    "an eighth of the way": (1.0, -1.0, 2.0**-13, 2.0**-10),
    "below a power of two": (1.0, 3.0, 2.0**-14, 2.0**-11),
    "nearly all the way": (3.0, -31.0, 2.0**-14, 2.0**-11),
    "negative": (-5.0, -1.0, 2.0**-10, 2.0**-7),
    "from zero": (0.0, -(1 + 2.0**-7), 1 + 2.0**-9, 1 + 2.0**-9),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@on_numpy
def test_the_chance_is_the_distance(backend, step):
    param, grad, *rates = step
    for dtype, rate in zip(("float16", "bfloat16"), rates, strict=True):
        if dtype not in backend.dtypes:
            continue
        exact = low_precision.Fraction(param) - low_precision.Fraction(rate) * low_precision.Fraction(grad)
        low, high, way = neighbours(exact, dtype)
        assert 0 < way < 1
        sign = 1 if exact > 0 else -1
        (got,) = walk(backend, stochastic(lr=rate), np.full(MANY, param), [np.full(MANY, grad)], dtype)
        assert set(got.tolist()) == {sign * float(low), sign * float(high)}
        assert_share(np.sum(got == sign * float(high)), float(way))


@pytest.mark.parametrize("part", [1 / 8, 1 / 2, 7 / 8])
@pytest.mark.parametrize("sign", [1, -1])
@on_numpy
def test_the_chance_is_the_distance_between_subnormals_and_zero(backend, part, sign):
    for dtype in low_dtypes(backend):
        if dtype == "bfloat16" and backend.library in FLUSHING:
            continue
        smallest = 2.0 ** SMALLEST[dtype]
        for below in (0.0, 1.0, 5.0):
            start, grad = np.full(MANY, sign * below * smallest), np.full(MANY, -sign * smallest)
            (got,) = walk(backend, stochastic(lr=part), start, [grad], dtype)
            assert set(got.tolist()) == {sign * below * smallest, sign * (below + 1) * smallest}
            assert_share(np.sum(got == sign * (below + 1) * smallest), part)


@on_numpy
def test_the_chance_of_overflow_is_the_distance(backend):
    """Beyond the largest number, infinity takes the place of the next one."""
    for dtype, ulp in (("float16", 32.0), ("bfloat16", 2.0**120)):
        if dtype in backend.dtypes:
            start, grad = np.full(MANY, LARGEST[dtype]), np.full(MANY, -ulp)
            (got,) = walk(backend, stochastic(lr=0.25), start, [grad], dtype)
            assert set(got.tolist()) == {LARGEST[dtype], math.inf}
            assert_share(np.sum(np.isinf(got)), 0.25)


@on_numpy
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_100_small_steps_arrive_on_average(backend, dtype):
    """To the nearest, every one of them is lost."""
    if dtype not in backend.dtypes:
        return
    size, lr, ulp = (
        10_000,
        {"bfloat16": 1e-3, "float16": 1e-4}[dtype],
        {"bfloat16": 2.0**-8, "float16": 2.0**-11}[dtype],
    )
    opt, plain, one = stochastic(lr=lr), SGD(lr=lr), backend.array([1.0] * size, dtype)
    param = still = one
    for _ in range(100):
        param, still = opt.update(param, one, "W"), plain.update(still, one, "W")
    (stayed,) = fetch(backend, [still])
    assert set(stayed.tolist()) == {1.0}
    way = lr / ulp
    deviation = ulp * math.sqrt(100 * way * (1 - way) / size)  # each step is a draw of its own
    (values,) = fetch(backend, [param])
    assert abs(np.mean(values) - (1 - 100 * lr)) <= SIGMAS * deviation + 100 * 2.0**-25


def bits_of(backend, key, size=2**17, shape=None):
    """The random bits as an array library makes them, as unsigned integers."""
    like = backend.array(np.zeros(shape or size), "float32")
    library = library_of(like)
    with np.errstate(all="ignore"):
        made = library.guard(lambda x: rounding.random_bits(library, x, key))(like)
        return np.asarray(made.get() if backend.library == "cupy" else made).astype(np.int64) % 2**32


@pytest.mark.any_width
def test_bits_are_those_of_the_formula_everywhere(backend):
    for key in ((0, 0), (-1, 1), (2**31 - 1, -(2**31))):
        want = random_bits(tuple(word % 2**32 for word in key), 3000)
        assert bits_of(backend, key, 3000).tolist() == want
        assert bits_of(backend, key, shape=(30, 4, 25)).ravel().tolist() == want


KEYS = [(0, 0), (1, 0), (0, 1), (-559038737, 123456789)]


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("key", KEYS, ids=str)
class TestBits:
    """Of one key; 2**17 draws."""

    def test_every_bit_is_balanced(self, backend, key):
        bits = bits_of(backend, key)
        for bit in range(32):
            assert_share(np.sum(bits >> bit & 1), 0.5, bits.size)

    def test_bits_are_independent_of_each_other(self, backend, key):
        bits = bits_of(backend, key)
        columns = [bits >> bit & 1 for bit in range(32)]
        for i in range(32):
            for j in range(i):
                assert_share(np.sum(columns[i] ^ columns[j]), 0.5, bits.size)

    @pytest.mark.parametrize("apart", [1, 2, 3, 16, 64, 256, 1000, 65536])
    def test_elements_are_independent_of_each_other(self, backend, key, apart):
        bits = bits_of(backend, key)
        assert_uncorrelated(bits[apart:], bits[:-apart])

    def test_values_spread_evenly(self, backend, key):
        """Of the 13 and 16 bits that are used, over 256 boxes: chi squared, of mean 255 and deviation sqrt(510)."""
        for lost in (13, 16):
            counts = np.bincount((bits_of(backend, key) & (2**lost - 1)) >> lost - 8, minlength=256)
            squared = np.sum((counts - 512.0) ** 2) / 512
            assert abs(squared - 255) <= SIGMAS * math.sqrt(510)


def assert_uncorrelated(a, b):
    for lost in (13, 16):
        mask = 2**lost - 1
        correlation = np.corrcoef(a & mask, b & mask)[0, 1]
        assert abs(correlation) <= SIGMAS / math.sqrt(len(a))
    for bit in range(16):
        assert_share(np.sum((a ^ b) >> bit & 1), 0.5, len(a))


RELATED = {
    "steps": [(0, t, "W") for t in (1, 2, 3, 4, 5, 6)],
    "seeds": [(seed, 1, "W") for seed in (0, 1, 2, 3, 2**32, 2**64)],
    "names": [(0, 1, name) for name in ("W", "b", "W0", "W1", 0, ["layers", 0, "W"])],
    "one for the other": [(1, 2, "W"), (2, 1, "W"), (0, 12, "W"), (1, 2, 3), (1, 23, "W")],
}


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("drawn", RELATED.values(), ids=RELATED)
def test_updates_are_independent_of_each_other(backend, drawn):
    """Place by place, and one place further."""
    keys = [np.array(key_of(*one), np.uint32).view(np.int32).tolist() for one in drawn]
    bits = [bits_of(backend, key) for key in keys]
    for i, a in enumerate(bits):
        for b in bits[:i]:
            assert_uncorrelated(a, b)
            assert_uncorrelated(a[1:], b[:-1])
            assert_uncorrelated(a[:-1], b[1:])


@pytest.mark.any_width
def test_what_is_drawn_depends_on_seed_name_and_count_alone(backend):
    """Not on the other parameters, on their order, on the way to update, or on the rate's schedule."""
    for dtype in low_dtypes(backend):
        params, grads = model(backend, dtype)
        ends = []
        for way in ("update", "update_all", "turned", "more", "scheduled"):
            kind = {"lr_scheduler": "exponential(initial_lr=0.125, decay=1.0)"} if way == "scheduled" else {"lr": 0.125}
            opt, x = stochastic(Adam, seed=7, **kind), dict(params)
            for _ in range(3):
                g = grads
                if way == "turned":
                    x, g = ({name: of[name] for name in ("b", "W")} for of in (x, g))
                elif way == "more":
                    x, g = {"first": params["b"], **x}, {"first": params["b"], **g}
                if way == "update":
                    x = {name: opt.update(x[name], g[name], name) for name in x}
                    opt.step()
                else:
                    x = opt.update_all(x, g)
            ends.append(frozen(backend, [x["W"], x["b"]]))
        assert ends == ends[:1] * len(ends)


@pytest.mark.parametrize("change", ["seed", "name", "count"])
@pytest.mark.any_immutable
def test_another_seed_name_or_count_draws_otherwise(backend, change):
    dtype = low_dtypes(backend)[-1]
    start, grad = np.ones(1000), [np.ones(1000)]
    (one,) = walk(backend, stochastic(lr=RATE, seed=1), start, grad, dtype)
    (again,) = walk(backend, stochastic(lr=RATE, seed=1), start, grad, dtype)
    other = stochastic(lr=RATE, seed=2 if change == "seed" else 1)
    if change == "count":
        other.set_params(cache_dict={"W": {"t": 1}})
    (new,) = walk(backend, other, start, grad, dtype, "V" if change == "name" else "W")
    assert np.array_equal(one, again)
    assert 0 < np.mean(one != new) < 1


# What it is told, and what it tells


@pytest.mark.backends("numpy")
@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"rounding": "random"}, ValueError, "wanted one of 'nearest', 'stochastic'"),
        ({"rounding": True}, TypeError, "is a bool"),
        ({"rounding": None}, TypeError, "is a NoneType"),
        ({"seed": -1}, ValueError, r"out of range; wanted an int in \[0, 1.8e308\]"),
        ({"seed": 1.0}, TypeError, "is a float"),
        ({"seed": True}, TypeError, "is a bool"),
        ({"seed": None}, TypeError, "is a NoneType"),
        ({"stochastic_rounding": True}, TypeError, "did you mean 'rounding'"),
        ({"random_state": 3}, TypeError, "did you mean 'seed'"),
        ({"rounding": "stochastic", "master": True}, ValueError, "cannot be combined"),
    ],
    ids=str,
)
def test_what_is_refused(settings, error, says):
    with pytest.raises(error, match=says):
        Adam(**settings)
    opt = Adam()
    before = str(opt), dict(opt.hyperparameters)
    with pytest.raises((error, KeyError), match=says):
        opt.set_params(settings)
    assert (str(opt), dict(opt.hyperparameters)) == before


@pytest.mark.any_immutable
def test_it_does_not_go_together_with_master(backend):
    dtype = low_dtypes(backend)[0]
    for one, other in (({"master": True}, {"rounding": "stochastic"}), ({"rounding": "stochastic"}, {"master": True})):
        opt = Adam(**one)
        train(backend, opt, 2, dtype=dtype)
        with nothing_changes(backend, opt, dtype=dtype), pytest.raises(ValueError, match="cannot be combined"):
            opt.set_params({**other, "lr": 0.5})
        state = opt.state_dict()
        state["header"]["groups"][0]["settings"].update(other)
        for options in ({}, {"strict": False}):
            with nothing_changes(backend, opt, dtype=dtype), pytest.raises(CheckpointError, match="cannot be combined"):
                opt.load_state_dict(state, **options)
        opt.set_params({"master": False, "rounding": "nearest", **other})
        assert opt.hyperparameters["master"] is ("master" in other)


@pytest.mark.backends("numpy")
def test_a_seed_of_numpys_is_an_int():
    assert type(SGD(seed=np.int64(5)).hyperparameters["seed"]) is int


def test_explain_says_where_it_runs_eagerly(backend):
    params = {dtype: backend.array(np.ones((3, 4)), dtype) for dtype in backend.dtypes}
    plain, opt = Adam(), stochastic(Adam)
    with xpopt.engine("blocked"):
        pairs = list(zip(opt.explain(params), plain.explain(params), strict=True))
    for row, before in pairs:
        assert row.state_bytes == before.state_bytes
        if row.name in ("float16", "bfloat16"):
            assert row.engine == "eager"
            if backend.library == "numpy":
                assert row.reason == "the blocked engine does not round stochastically"
        else:
            assert (row.engine == "eager") == (before.engine == "eager")


UNKNOWN = [1.5, ("a", (b"", 2j)), np.str_("U"), object]


@pytest.mark.any_immutable
@pytest.mark.parametrize("name", UNKNOWN, ids=repr)
def test_a_name_that_another_process_would_not_know_is_named(backend, name):
    dtype = low_dtypes(backend)[0]
    opt = stochastic(Adam, lr_scheduler="king(initial_lr=0.125, patience=2)")
    params = train(backend, opt, 2, dtype=dtype)
    grads = {name: params["b"], "b": params["b"]}
    with nothing_changes(backend, opt, dtype=dtype):
        refused = r"parameter name .* cannot hash in the same way again; wanted None, bool, int, str, bytes or a tuple"
        with pytest.raises(TypeError, match=refused):
            opt.update(params["b"], params["b"], name, 9.0)
        with pytest.raises(TypeError, match=refused):
            opt.update_all({"b": params["b"], name: params["b"]}, grads, 9.0)
        with pytest.raises(TypeError, match=refused):
            opt.explain({name: params["b"]})
    wide = backend.array(np.ones(3), "float32")
    opt.update(wide, wide, name, 9.0)  # which draws nothing
    opt.set_params({"rounding": "nearest"})
    opt.update(params["b"], params["b"], ("nearest", name), 9.0)


# The state


@pytest.mark.parametrize("name", rows({name: name for name in OPTIMIZERS}, KINDS))
@pytest.mark.any_immutable
def test_a_state_goes_to_numpy_and_back(backend, name):
    """With the same draws on both sides, where the arithmetic is exact or correctly rounded."""
    for dtype in low_dtypes(backend):
        bfloat16 = dtype == "bfloat16" and pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16").bfloat16
        numpys = np.dtype(bfloat16 or dtype)
        opt = OPTIMIZERS[name](rounding="stochastic", seed=5)
        params = train(backend, opt, 3, dtype=dtype)
        moved = OPTIMIZERS[name]()
        there = {key: read(backend, x).astype(numpys) for key, x in params.items()}
        moved.load_state_dict(opt.state_dict(), like=there)
        for step in range(3):
            _, grads = model(backend, dtype, scale=1 + step)
            there = {key: moved.update(x, read(backend, grads[key]).astype(numpys), key) for key, x in there.items()}
        back = OPTIMIZERS[name]()
        back.load_state_dict(moved.state_dict(), like=params)
        params = train(backend, opt, 3, params, dtype)
        for key, x in params.items():
            assert np.array_equal(read(backend, x), there[key].astype(np.float64))
        assert same(backend, back.cache, opt.cache)


@pytest.mark.any_immutable
def test_the_count_goes_on_where_a_checkpoint_has_it(backend):
    """A rule that keeps one array has it in the checkpoint, not in the cache."""
    for dtype in low_dtypes(backend):
        opt = stochastic(RMSProp, lr=RATE)
        params = train(backend, opt, 3, dtype=dtype)
        again, forgetful = RMSProp(), stochastic(RMSProp, lr=RATE)
        again.load_state_dict(opt.state_dict())
        forgetful.set_params(cache_dict=opt.cache)
        grads = {name: backend.array(np.full(tuple(x.shape), 1.0), dtype) for name, x in params.items()}
        want, got, other = (one.update_all(params, grads) for one in (opt, again, forgetful))
        assert same(backend, got, want)
        assert not same(backend, other, want)


def put_back(opt):
    opt.cache = dict(opt.cache)


def copied(opt):
    opt.cache = {name: copy.deepcopy(entry) for name, entry in opt.cache.items()}


def restored(opt):
    opt.set_params(cache_dict=opt.cache)


@pytest.mark.parametrize("touch", rows({of.__name__: of for of in (put_back, copied, restored)}, ["copied"]))
@every_optimizer
@pytest.mark.any_immutable
def test_a_cache_that_is_put_back_draws_on(backend, make, touch):
    """So does a program that persists its state at every step: it draws what one draws that leaves the cache alone."""
    for dtype in low_dtypes(backend):
        left, touched = stochastic(make, lr=RATE), stochastic(make, lr=RATE)
        want = got = None
        for _ in range(4):
            want, got = train(backend, left, 1, want, dtype), train(backend, touched, 1, got, dtype)
            touch(touched)
        assert same(backend, got, want)


@pytest.mark.any_immutable
def test_switching_keeps_the_state(backend):
    for dtype in low_dtypes(backend):
        opt, plain = Adam(lr=0.125), Adam(lr=0.125)
        params = train(backend, opt, 2, dtype=dtype)
        train(backend, plain, 2, dtype=dtype)
        for rounding_now in ("stochastic", "nearest"):
            opt.set_params({"rounding": rounding_now})
            _, grads = model(backend, dtype, scale=3)
            opt.update_all(params, grads)
            plain.update_all(params, grads)
            assert same(backend, opt.cache, plain.cache)  # slots are float32, and round as ever


@pytest.mark.any_immutable
def test_renamed_it_draws_by_the_new_name(backend):
    dtype = low_dtypes(backend)[-1]
    opt = stochastic(lr=RATE)
    start = backend.array(np.ones(1000), dtype)
    x = opt.update(start, start, "W")
    again = SGD()
    again.load_state_dict(opt.state_dict(), rename={"W": "V"})
    other = stochastic(lr=RATE)
    other.set_params(cache_dict={"V": {"t": 1}})
    assert same(backend, again.update(x, start, "V"), other.update(x, start, "V"))


@writes_16_bits
@pytest.mark.any_immutable
def test_out_gets_what_would_be_returned(backend):
    for dtype in low_dtypes(backend):
        one, other = stochastic(Adam, lr=RATE), stochastic(Adam, lr=RATE)
        x, y = backend.writable(np.ones(100), dtype), backend.array(np.ones(100), dtype)
        for _ in range(3):
            grad = backend.array(np.linspace(-1, 1, 100), dtype)
            y = other.update(y, grad, "W")
            assert one.update(x, grad, "W", out=x) is x
            assert same(backend, x, y)


@pytest.mark.any_immutable
def test_a_step_left_out_draws_nothing(backend):
    """The count stays, and so the next step draws what this one would have."""
    dtype = low_dtypes(backend)[-1]
    opt, plain = stochastic(nonfinite="skip", lr=RATE), stochastic(lr=RATE)
    start, bad = backend.array(np.ones(1000), dtype), backend.array([math.nan] * 1000, dtype)
    x, y = start, start
    for step in range(3):
        if step == 1:
            left = opt.update(x, bad, "W")
            assert same(backend, left, x)
        x, y = opt.update(x, start, "W"), plain.update(y, start, "W")
        if step == 0:
            assert same(backend, x, y)
    assert opt.skipped == 1


@pytest.mark.backends("numpy")
def test_memory_is_some_arrays_of_the_parameters_size(backend):
    """Beside the arrays of 4 bytes that the formula itself takes."""
    size = 10**6
    x = np.ones(size, np.float16)
    peaks = {}
    for kind in ("nearest", "stochastic"):
        opt = SGD(rounding=kind)
        opt.update(x, x, "W", out=x)
        tracemalloc.start()
        opt.update(x, x, "W", out=x)
        _, peaks[kind] = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peaks["stochastic"] - peaks["nearest"] <= 10 * 4 * size


@pytest.mark.backends("numpy")
def test_the_neighbours_that_all_this_is_measured_by():
    """Every number of a dtype is its own, and the next one is the other."""
    for dtype in ("float16", "bfloat16"):
        for x in low_precision.finite_numbers(dtype)[::97]:
            low, high, way = neighbours(low_precision.Fraction(float(x)), dtype)
            assert (float(low), way) == (abs(x), 0)
            assert float(high) > LARGEST[dtype] or nearest(float(high), dtype) == float(high)


# Nothing waits for a device


@pytest.mark.backends("jax")
def test_the_rounding_reads_no_value(backend):
    """Under jit a read would raise."""
    jax = pytest.importorskip("jax")
    for dtype in low_dtypes(backend):
        for values in (np.linspace(-2, 2, 35).reshape(5, 7), np.array(1.0001)):
            x = backend.array(values, "float32")
            arguments = library_of(x), backend.dtype(dtype)

            def draw(x, arguments=arguments):
                library, kind = arguments
                return rounding.round_stochastically(library, x, kind, (5, -7))

            assert same(backend, jax.jit(draw)(x), draw(x))


@pytest.mark.backends("dask")
@pytest.mark.parametrize("options", [{"rounding": "stochastic"}, {"master": True}], ids=str)
def test_dask_computes_nothing(backend, options):
    dask = pytest.importorskip("dask")

    def refuse(*args, **kwargs):
        raise RuntimeError("computed")

    opt = Adam(**options)
    params, grads = model(backend, "float16")
    with dask.config.set(scheduler=refuse):
        for _ in range(3):
            params = opt.update_all(params, grads)
        opt.explain(params)
        opt.copy()
    assert np.all(np.isfinite(read(backend, params["W"])))


@pytest.mark.backends("dask")
def test_chunks_make_no_difference(backend):
    params, grads = model(backend, "float16")
    cut = [{name: x.rechunk(2) for name, x in of.items()} for of in (params, grads)]
    ends = [stochastic(Adam, seed=3).update_all(*of) for of in ((params, grads), cut)]
    assert same(backend, *({name: x.rechunk(-1) for name, x in end.items()} for end in ends))
