"""Master copies: parameters of 16 bits walk as float32 does, and what a caller does to them is never lost."""

from typing import NamedTuple

import numpy as np
import pytest
from _kit import oracles, problems, table
from _kit.low_precision import FLUSHING, LARGEST, finite_numbers, nearest, writes_16_bits
from _kit.rows import KINDS, rows
from _kit.states import MODEL, OPTIMIZERS, every_optimizer, frozen, held, model, nothing_changes, same, train
from _kit.table import BY_LABEL
from _kit.trajectories import HAVE_16_BITS, UNIT, assert_close, low_dtypes, read

import xpopt
from xpopt import SGD, Adam, CheckpointError, RMSProp

pytestmark = [HAVE_16_BITS, pytest.mark.any_immutable]

CASES = pytest.mark.parametrize("case", rows(table.PROMISES, KINDS))


def slots_of(entry):
    """The slots of an entry by name, whatever its form, without the copy."""
    entry = entry if isinstance(entry, dict) else {"the slot": entry}
    return {slot: x for slot, x in entry.items() if slot not in ("t", "master")}


def same_slots(backend, entry, other):
    """Whether two entries, of which one may have a copy, hold the same but for that."""
    return same(backend, list(slots_of(entry).values()), list(slots_of(other).values()))


def in_float32(backend, x):
    return backend.array(read(backend, x), "float32")


# The walk


@CASES
def test_the_copy_has_the_bits_of_a_parameter_of_float32(backend, case):
    """And the parameter those of the copy, rounded once. One dtype is clipped: which one changes from row to row."""
    for i, dtype in enumerate(low_dtypes(backend)):
        clip_norm = 0.5 if i == list(table.BY_LABEL).index(str(case)) % 2 else None
        low, wide = (case.make(lr=0.05, clip_norm=clip_norm) for _ in range(2))
        low.set_params({"master": True})
        x, _ = model(backend, dtype)
        y = {name: in_float32(backend, value) for name, value in x.items()}
        for step in range(6):
            _, grads = model(backend, dtype, scale=1 + step % 3)
            x = low.update_all(x, grads)
            y = wide.update_all(y, {name: in_float32(backend, grad) for name, grad in grads.items()})
        for name in x:
            assert x[name].dtype == backend.dtype(dtype)
            assert same(backend, low.cache[name]["master"], y[name])
            assert same_slots(backend, low.cache[name], wide.cache[name])
            assert np.array_equal(read(backend, x[name]), nearest(read(backend, y[name]), dtype))


@CASES
@pytest.mark.any_engine
def test_the_copy_walks_as_the_equation(backend, case):
    """In float64, over gradients that have been rounded to 16 bits."""
    var = problems.variable(31, (7, 5), steps=20)
    for dtype in low_dtypes(backend):
        opt = case.make(lr=0.1, master=True)
        start = nearest(var.start, dtype)
        grads = [nearest(g, dtype) for g in var.gradients]
        path = oracles.walk(case.equation, start.tolist(), [g.tolist() for g in grads], [0.1] * 20, **case.arguments)
        param, got = backend.array(start.reshape(7, 5), dtype), []
        for grad in grads:
            param = opt.update(param, backend.array(grad.reshape(7, 5), dtype), "W")
            got.append(read(backend, opt.cache["W"]["master"]).ravel())
        assert_close(got, [p for p, _ in path], start, "float32", case.roundings, f"{case}, {dtype}")


@pytest.mark.parametrize(("dtype", "lr"), [("bfloat16", 1e-3), ("float16", 1e-4)])
@pytest.mark.any_engine
def test_steps_too_small_to_see_arrive_all_the_same(backend, dtype, lr):
    if dtype not in backend.dtypes:
        return
    one = backend.array([1.0], dtype)
    ends = {}
    for master in (False, True):
        opt, param = SGD(lr=lr, master=master), one
        for _ in range(100):
            param = opt.update(param, one, "W")
        ends[master] = float(read(backend, param)[0])
    assert ends[False] == 1.0
    assert abs(ends[True] - (1 - 100 * lr)) <= oracles.ulp(0.9, dtype) / 2 + 100 * UNIT["float32"]


# What a caller does to the parameter


def pairs_around(dtype):
    """Masters on both sides of every boundary at which rounding changes, each with the parameters near it."""
    numbers = finite_numbers(dtype)
    with np.errstate(over="ignore"):  # the last boundary of bfloat16 lies half a step beyond its largest number
        after = np.append(numbers[1:], np.inf)
        middles = np.append((numbers[1:] + numbers[:-1]) / 2, LARGEST[dtype] + oracles.ulp(LARGEST[dtype], dtype) / 2)
    masters, params = [], []
    for centre in (numbers, middles):
        centre = centre.astype(np.float32)
        for master in (centre, np.nextafter(centre, np.float32(np.inf)), np.nextafter(centre, np.float32(-np.inf))):
            for param in (numbers, after, np.insert(numbers[:-1], 0, -np.inf)):
                masters.append(master)
                params.append(param)
    odd = [(np.inf, np.inf), (-np.inf, -np.inf), (np.inf, -np.inf), (np.nan, np.nan), (1.0, np.nan), (np.nan, 1.0)]
    odd += [(0.0, -0.0), (3e38, np.inf), (-3.4e38, -np.inf), (np.inf, 1.0), (1.0, np.inf), (1e5, -np.inf)]
    masters.append(np.array([m for m, _ in odd], np.float32))
    params.append(np.array([p for _, p in odd]))
    return np.concatenate(masters), np.concatenate(params)


def assert_copy_is_kept_where_the_parameter_is_what_it_rounds_to(backend, dtype):
    master, param = pairs_around(dtype)
    if backend.library in FLUSHING:
        normal = np.all([(x == 0) | ~(np.abs(x) < 2.0**-100) for x in (master, param)], axis=0)
        master, param = master[normal], param[normal]
    opt = SGD(lr=0.0, master=True)
    opt.set_params(cache_dict={"W": {"t": 1, "master": backend.array(master, "float32")}})
    zeros = backend.array(np.zeros(len(param)), dtype)
    new = opt.update(backend.array(param, dtype), zeros, "W")
    rounded = nearest(master, dtype)
    want = np.where(rounded == param, master.astype(np.float64), param)
    assert np.array_equal(read(backend, opt.cache["W"]["master"]), want, equal_nan=True)
    assert np.array_equal(read(backend, new), param, equal_nan=True)


def test_a_copy_is_kept_where_the_parameter_is_what_it_rounds_to(backend):
    """Over all numbers of 16 bits, and all boundaries of rounding; a change by the least there is is a change."""
    for dtype in low_dtypes(backend):
        assert_copy_is_kept_where_the_parameter_is_what_it_rounds_to(backend, dtype)


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_copy_is_kept_by_what_fuses_too(backend, fused, dtype):
    if dtype in backend.dtypes:
        assert_copy_is_kept_where_the_parameter_is_what_it_rounds_to(backend, dtype)


def decay(values):
    return values * (1 - 2.0**-8)


def clip(values):
    return np.clip(values, -0.4921875, 0.4921875)


def load(values):
    return np.linspace(-2, 2, values.size)


def nudge(values):
    """By the last digit, up at the end of a binade, where half a step is the smallest part of a number."""
    return np.where(np.arange(values.size) % 2, values, values * (1 + 2.0**-8))


def leave(values):
    return values


@pytest.mark.parametrize("change", [decay, clip, load, nudge, leave], ids=lambda change: change.__name__)
@pytest.mark.parametrize("every", [1, 3])
def test_what_a_caller_changes_is_where_it_goes_on(backend, change, every):
    """Against the same walk in NumPy's float32, with the same changes."""
    rng = np.random.default_rng(7)
    for dtype in low_dtypes(backend):
        opt = SGD(lr=2.0**-7, momentum=0.5, master=True)
        seen = nearest(rng.uniform(-1, 1, 501), dtype)
        master, velocity = seen.astype(np.float32), np.zeros(501, np.float32)
        for step in range(12):
            if step % every == 0:
                seen, left = nearest(change(seen), dtype), seen
                master = np.where(seen == left, master, seen.astype(np.float32))
            grad = nearest(rng.normal(size=501), dtype)
            seen = read(backend, opt.update(backend.array(seen, dtype), backend.array(grad, dtype), "W"))
            velocity = np.float32(0.5) * velocity + np.float32(2.0**-7) * grad.astype(np.float32)
            master = master - velocity
            assert np.array_equal(seen, nearest(master, dtype)), step
        assert np.array_equal(read(backend, opt.cache["W"]["master"]), master)


@writes_16_bits
def test_what_is_changed_in_place_counts_as_well(backend):
    for dtype in low_dtypes(backend):
        opt, x = SGD(lr=0.25, master=True), backend.writable([1.0, 2.0, 3.0], dtype)
        grad = backend.array([2.0**-9] * 3, dtype)
        for _ in range(3):
            opt.update(x, grad, "W", out=x)
        x[1] = 7.0
        opt.update(x, grad, "W", out=x)
        want = [1 - 2.0**-9, 7 - 2.0**-11, 3 - 2.0**-9]
        assert read(backend, opt.cache["W"]["master"]).tolist() == want
        assert read(backend, x).tolist() == nearest(want, dtype).tolist()


# The edges of the dtype


def test_a_parameter_that_overflows_float16_comes_back(backend):
    opt, param, seen = SGD(lr=1.0, master=True), backend.array([65504.0, -65504.0], "float16"), []
    for grad in (-10.0, -6.0, -1000.0, 1020.0):  # 65520 is the first that is infinite
        param = opt.update(param, backend.array([grad, -grad], "float16"), "W")
        seen.append(read(backend, param).tolist())
        assert np.all(np.isfinite(read(backend, opt.cache["W"]["master"])))
    assert seen == [[65504.0, -65504.0], [np.inf, -np.inf], [np.inf, -np.inf], [65504.0, -65504.0]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_as_it_is(backend, value):
    for dtype in low_dtypes(backend):
        opt, param = SGD(lr=0.5, master=True), backend.array([value, 1.0], dtype)
        for _ in range(3):
            param = opt.update(param, backend.array([1.0, 2.0], dtype), "W")
        assert np.array_equal(read(backend, param), [value, -2.0], equal_nan=True)
        assert np.array_equal(read(backend, opt.cache["W"]["master"]), [value, -2.0], equal_nan=True)
        new = opt.update(backend.array([0.5, 0.5], dtype), backend.array([1.0, 1.0], dtype), "W")
        assert read(backend, new).tolist() == [0.0, 0.0]


def test_a_copy_among_the_subnormal_numbers(backend):
    """Quarters of the smallest number add up to it."""
    smallest = {"float16": 2.0**-24, "bfloat16": 2.0**-133}
    for dtype in low_dtypes(backend):
        if dtype == "bfloat16" and backend.library in FLUSHING:
            continue
        opt, param, seen = SGD(lr=0.25, master=True), backend.array([0.0], dtype), []
        for _ in range(9):
            param = opt.update(param, backend.array([-smallest[dtype]], dtype), "W")
            seen.append(float(read(backend, param)[0]) / smallest[dtype])
        assert seen == [0, 0, 1, 1, 1, 2, 2, 2, 2]  # of 0.25, 0.5, ..., 2.25, half to even
        assert float(read(backend, opt.cache["W"]["master"])[0]) == 2.25 * smallest[dtype]


@pytest.mark.parametrize("shape", [(), (0,), (1, 0, 2), (1,), (2, 1, 3)])
def test_any_shape(backend, shape):
    for dtype in low_dtypes(backend):
        opt, param = Adam(lr=2.0**-9, master=True), backend.array(np.ones(shape), dtype)
        for _ in range(3):
            param = opt.update(param, backend.array(np.ones(shape), dtype), "W")
        assert tuple(param.shape) == tuple(opt.cache["W"]["master"].shape) == shape
        # Adam's first steps are of the rate's length; eps is 1e-7 of it
        assert np.all(np.abs(read(backend, opt.cache["W"]["master"]) - (1 - 3 * 2.0**-9)) < 1e-6)


# What is kept, and how it is switched


@every_optimizer
def test_only_narrow_parameters_have_a_copy(backend, make):
    plain, opt = make(), make(master=True)
    wide = [dtype for dtype in backend.dtypes if dtype not in ("float16", "bfloat16")]
    params = {dtype: backend.array(np.ones((3, 4)), dtype) for dtype in backend.dtypes}
    for _ in range(3):
        new = opt.update_all(params, params)
        want = {name: plain.update(params[name], params[name], name) for name in wide}
        assert same(backend, {name: new[name] for name in wide}, want)
        plain.step()
    for name in wide:
        assert same(backend, opt.cache[name], plain.cache[name])
    for name in low_dtypes(backend):
        assert opt.cache[name]["t"] == 3
        assert list(opt.cache[name])[-1] == "master"
        assert all(opt.cache[name][slot].dtype == backend.dtype("float32") for slot in list(opt.cache[name])[1:])


@every_optimizer
def test_explain_counts_the_bytes_of_the_copy(backend, make):
    params = {dtype: backend.array(np.ones((3, 4)), dtype) for dtype in backend.dtypes}
    plain, opt = make(), make(master=True)
    with xpopt.engine("blocked"):  # which needs nothing that another test may have compiled
        pairs = list(zip(plain.explain(params), opt.explain(params), strict=True))
    for one, two in pairs:
        narrow = one.name in ("float16", "bfloat16")
        assert two.state_bytes == one.state_bytes + (4 * 12 if narrow else 0)
        assert (two.engine == "eager") == (one.engine == "eager")


@every_optimizer
def test_switched_on_it_starts_from_the_parameter(backend, make):
    """The other slots and the counts stay as they are."""
    for dtype in low_dtypes(backend):
        opt, wide = make(), make()
        params = train(backend, opt, 3, dtype=dtype)
        y = {name: in_float32(backend, x) for name, x in params.items()}
        wide.load_state_dict(opt.state_dict(), like=y, cast=True)
        opt.set_params({"master": True})
        assert opt.hyperparameters["master"] is True
        for step in range(3):
            _, grads = model(backend, dtype, scale=1 + step)
            params = opt.update_all(params, grads)
            y = wide.update_all(y, {name: in_float32(backend, x) for name, x in grads.items()})
        for name in MODEL:
            assert same(backend, opt.cache[name]["master"], y[name])
            assert same_slots(backend, opt.cache[name], wide.cache[name])
        assert [p["updates"] for p in opt.state_dict()["header"]["parameters"]] == [6, 6]


@every_optimizer
def test_switched_off_the_copy_is_dropped(backend, make):
    for dtype in low_dtypes(backend):
        opt, plain = make(master=True), make()
        params = train(backend, opt, 3, dtype=dtype)
        state = opt.state_dict()
        state["header"]["groups"][0]["settings"]["master"] = False
        for parameter in state["header"]["parameters"]:
            del parameter["slots"]["master"]
        for name in MODEL:
            del state["arrays"][f"{name}/master"]
        plain.load_state_dict(state)
        opt.set_params({"master": False})
        ends = [frozen(backend, train(backend, one, 2, params, dtype)) for one in (opt, plain)]
        assert ends[0] == ends[1]
        assert same(backend, opt.cache, plain.cache)
        assert opt.state_dict()["header"] == plain.state_dict()["header"]


@every_optimizer
def test_off_and_on_again_at_once_changes_nothing(backend, make):
    for dtype in low_dtypes(backend):
        opt = make(master=True)
        params = train(backend, opt, 3, dtype=dtype)
        other = opt.copy()
        other.set_params({"master": False})
        other.set_params({"master": True})
        assert frozen(backend, train(backend, other, 2, params, dtype)) == frozen(
            backend, train(backend, opt, 2, params, dtype)
        )
        assert same(backend, other.cache, opt.cache)


SETTINGS = [{"momentum": momentum, "master": master} for momentum in (0.0, 0.5) for master in (False, True)]


@pytest.mark.parametrize("before", SETTINGS, ids=str)
@pytest.mark.parametrize("after", SETTINGS, ids=str)
def test_momentum_and_copies_come_and_go(backend, before, after):
    """The velocity of a momentum that was off starts from rest; a copy is kept through it, where it is not dropped."""
    for dtype in low_dtypes(backend):
        opt = SGD(lr=2.0**-6, **before)
        grads = [nearest(g, dtype) for g in problems.variable(5, (9,), steps=7).gradients]
        seen = nearest(problems.variable(5, (9,)).start, dtype)
        master = velocity = None
        for step, grad in enumerate(grads):
            setting = before if step < 2 or step >= 5 else after
            if step in (2, 5):
                opt.set_params(setting)
            seen_new = read(backend, opt.update(backend.array(seen, dtype), backend.array(grad, dtype), "W"))
            x = master if setting["master"] and master is not None else seen.astype(np.float32)
            move = np.float32(2.0**-6) * grad.astype(np.float32)
            if setting["momentum"]:
                move = velocity = np.float32(0.5) * (np.float32(0) if velocity is None else velocity) + move
            else:
                velocity = None
            x = x - move
            master = x if setting["master"] else None
            seen = nearest(x, dtype)
            assert np.array_equal(seen_new, seen), step
        entry = opt.cache["W"]
        if master is not None:
            assert np.array_equal(read(backend, entry["master"]), master)
            assert list(entry) == ["t", *(["velocity"] if velocity is not None else []), "master"]
        else:
            assert not isinstance(entry, dict) or list(entry) == ["t"]


# Entries


@pytest.mark.parametrize("name", rows({name: name for name in OPTIMIZERS}, KINDS))
def test_entries_without_a_copy_are_taken(backend, name):
    """The update starts from the parameter."""
    for dtype in low_dtypes(backend):
        entry = BY_LABEL[name].entry(4, [backend.array([x] * 3, "float32") for x in (0.5, 0.25)])
        ends = []
        for way in ("set_params", "cache"):
            opt, x = OPTIMIZERS[name](master=True), backend.array([1.0, -2.0, 3.0], dtype)
            if way == "cache":
                opt.cache = {"W": entry}
            else:
                opt.set_params(cache_dict={"W": entry})
                assert same(backend, opt.cache["W"], entry)
            x = opt.update(x, backend.array([0.5, 1.0, 2.0], dtype), "W")
            ends.append((frozen(backend, x), frozen(backend, opt.cache["W"])))
        wide = OPTIMIZERS[name]()
        wide.set_params(cache_dict={"W": entry})
        y = wide.update(backend.array([1.0, -2.0, 3.0], "float32"), backend.array([0.5, 1.0, 2.0], "float32"), "W")
        assert ends == ends[:1] * len(ends)
        assert same(backend, opt.cache["W"]["master"], y)
        assert same_slots(backend, opt.cache["W"], wide.cache["W"])


def test_entries_of_the_wrong_form_are_refused(backend):
    dtype = low_dtypes(backend)[0]
    opt = Adam(master=True)
    params = train(backend, opt, 2, dtype=dtype)
    good = opt.cache["W"]
    wide = backend.array(np.ones((2, 3)), backend.widest)
    for wrong in (
        {**good, "master": None},
        {**good, "master": backend.array(np.ones(3), "float32")},
        {**good, "master": backend.array(np.ones((2, 3)), dtype)},
        {key: x for key, x in good.items() if key != "var"},
        {key: x for key, x in good.items() if key != "t"},
        {**good, "more": good["mean"]},
        *([{**good, "master": wide}] if backend.widest == "float64" else []),
    ):
        with nothing_changes(backend, opt, dtype=dtype), pytest.raises(ValueError, match="cache of 'W'"):
            opt.set_params(cache_dict={"W": wrong})
        broken = opt.copy()
        broken.cache["W"] = wrong
        before = held(backend, broken)
        with pytest.raises(ValueError, match="cache of 'W'"):
            broken.update(params["W"], params["W"], "W")
        assert held(backend, broken) == before


def test_a_copy_of_another_library_or_kind_is_refused_by_name(backend):
    dtype = low_dtypes(backend)[0]
    opt, x = SGD(master=True), backend.array([1.0, 2.0], dtype)
    opt.cache["W"] = {"t": 1, "master": backend.array([1.0, 2.0, 3.0], "float32")}
    with pytest.raises(ValueError, match=r"cache of 'W' holds 'master' as .*float32 of shape \(3,\)"):
        opt.update(x, x, "W")


def test_a_copy_that_is_to_be_dropped_is_looked_at(backend):
    """It may be saved before that."""
    x = backend.array([1.0, 2.0], "float32")
    for wrong in (None, 3.0, backend.array([1.0], "float32"), backend.array([1.0, 2.0], low_dtypes(backend)[0])):
        for opt in (Adam(master=True), Adam()):
            with nothing_changes(backend, opt, dtype="float32"), pytest.raises(ValueError, match="cache of 'W'"):
                opt.set_params(cache_dict={"W": {"t": 3, "mean": x, "var": x, "master": wrong}})
            opt.cache["W"] = {"t": 3, "mean": x, "var": x, "master": wrong}
            with pytest.raises(ValueError, match="cache of 'W'"):
                opt.state_dict()


def test_a_copy_that_nothing_keeps_is_no_harm(backend):
    """A float32 parameter whose entry has one, as of a checkpoint that was cast; and an optimizer without copies."""
    x, copied = backend.array([1.0, 2.0], "float32"), backend.array([7.0, 7.0], "float32")
    for opt in (Adam(master=True), Adam()):
        opt.set_params(cache_dict={"W": {"t": 3, "mean": x, "var": x, "master": copied}})
        plain = Adam()
        plain.set_params(cache_dict={"W": {"t": 3, "mean": x, "var": x}})
        assert same(backend, opt.update(x, x, "W"), plain.update(x, x, "W"))
        assert same(backend, opt.cache, plain.cache)


# Checkpoints; to go on in another process is in test_resume


@every_optimizer
@pytest.mark.any_engine
def test_a_state_with_copies_goes_anywhere(backend, make):
    """To NumPy and back, before and after it meets its parameters; the copies are among the arrays."""
    for dtype in low_dtypes(backend):
        if dtype == "bfloat16":
            pytest.importorskip("ml_dtypes", reason="NumPy has bfloat16 from ml_dtypes")
        opt = make(master=True)
        params = train(backend, opt, 4, dtype=dtype)
        state = opt.state_dict()
        assert [list(p["slots"])[-1] for p in state["header"]["parameters"]] == ["master", "master"]
        assert same(backend, state["arrays"]["W/master"], opt.cache["W"]["master"])
        numpys = np.dtype(dtype if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16)
        there = {name: read(backend, x).astype(numpys) for name, x in params.items()}
        moved, back, met = make(), make(), make()
        moved.load_state_dict(state, like=there)
        back.load_state_dict(moved.state_dict(), like=params)
        met.load_state_dict(moved.state_dict())
        assert same(backend, back.cache, opt.cache)
        assert type(moved.cache["b"]["master"]) is np.ndarray
        want = frozen(backend, train(backend, opt, 3, params, dtype))
        for one in (back, met):
            assert frozen(backend, train(backend, one, 3, params, dtype)) == want
            assert same(backend, one.cache, opt.cache)
        # on NumPy the gradients are the same numbers; +, -, *, / and roots have one result
        for step in range(3):
            _, grads = model(backend, dtype, scale=1 + step)
            grads = {name: read(backend, x).astype(numpys) for name, x in grads.items()}
            there = {name: moved.update(there[name], grads[name], name) for name in there}
        for name in MODEL:
            assert there[name].astype(np.float64).tobytes() == want[name][1]


def test_saved_without_and_loaded_with_and_the_reverse(backend):
    """A checkpoint says whether there are copies, as it says everything else; who wants it otherwise says so after."""
    for dtype in low_dtypes(backend):
        for there in (False, True):
            opt = Adam(lr=0.125, master=there)
            params = train(backend, opt, 3, dtype=dtype)
            again = Adam(master=not there)
            again.load_state_dict(opt.state_dict(), like=params)
            assert again.hyperparameters["master"] is there
            assert same(backend, again.cache, opt.cache)
            for one in (opt, again):
                one.set_params({"master": not there})
            assert frozen(backend, train(backend, again, 2, params, dtype)) == frozen(
                backend, train(backend, opt, 2, params, dtype)
            )
            assert ("master" in again.cache["W"]) is not there
            assert again.cache["W"]["t"] == 5


def test_a_copy_that_is_missing_or_wrong_does_not_fit(backend):
    dtype = low_dtypes(backend)[0]
    opt = RMSProp(master=True)
    params = train(backend, opt, 2, dtype=dtype)
    for spoil, says in (
        (lambda s: s["arrays"].pop("W/master"), "array 'W/master' is missing"),
        (lambda s: s["arrays"].update({"W/master": s["arrays"]["b/master"]}), "array 'W/master' is "),
        (lambda s: s["header"]["parameters"][0]["slots"].pop("master"), "array 'W/master' is not in the header"),
        (lambda s: s["header"]["parameters"][0]["slots"].pop("var"), "cache of 'W'"),
    ):
        state = opt.state_dict()
        spoil(state)
        with nothing_changes(backend, opt, dtype=dtype), pytest.raises(CheckpointError, match=says):
            opt.load_state_dict(state)
        again = RMSProp()
        report = again.load_state_dict(state, strict=False, like=params)
        assert "b" in report.loaded
        assert report.not_loaded


@pytest.mark.parametrize("switch", [True, False])
def test_the_copy_alone_is_no_other_slot(backend, switch):
    """A header that names nothing but the copy, of a rule whose state is one array."""
    opt = RMSProp(master=True)
    train(backend, opt, 2, dtype=low_dtypes(backend)[0])
    state = opt.state_dict()
    state["header"]["groups"][0]["settings"]["master"] = switch
    for parameter in state["header"]["parameters"]:
        del parameter["slots"]["var"]
    for name in MODEL:
        del state["arrays"][f"{name}/var"]
    with nothing_changes(backend, opt, dtype=low_dtypes(backend)[0]), pytest.raises(CheckpointError, match="'var'"):
        opt.load_state_dict(state)


def test_cast_and_rename(backend):
    """The copy goes with its parameter's new name; in float32 there is none, and from float32 it starts anew."""
    for dtype in low_dtypes(backend):
        opt = Adam(lr=0.125, master=True)
        params = train(backend, opt, 3, dtype=dtype)
        again = Adam()
        renamed = {"V": params["W"], "c": params["b"]}
        again.load_state_dict(opt.state_dict(), rename={"W": "V", "b": "c"}, like=renamed)
        assert same(backend, again.cache["V"], opt.cache["W"])
        grad = backend.array(np.ones((2, 3)), dtype)
        assert same(backend, again.update(params["W"], grad, "V"), opt.copy().update(params["W"], grad, "W"))

        wide = {name: in_float32(backend, x) for name, x in params.items()}
        with pytest.raises(CheckpointError, match="cast=True converts it"):
            again.load_state_dict(opt.state_dict(), like=wide)
        again.load_state_dict(opt.state_dict(), like=wide, cast=True)
        saved = again.state_dict()  # before it has met its parameters
        for one in (again, Adam()):
            if one is not again:
                one.load_state_dict(saved, like=wide)
            train(backend, one, 1, wide, "float32")
            assert list(one.cache["W"]) == ["t", "mean", "var"]
        back = Adam()
        back.load_state_dict(again.state_dict(), like=params, cast=True)
        train(backend, back, 1, params, dtype)
        assert list(back.cache["W"]) == ["t", "mean", "var", "master"]
        assert back.cache["W"]["t"] == 5


# The optimizer around it


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("value", [1, 0, None, "True", 1.0, "yes"])
def test_master_is_true_or_false(value):
    with pytest.raises(TypeError, match="wanted True or False"):
        SGD(master=value)
    opt = SGD(master=True)
    with pytest.raises(TypeError, match="wanted True or False"):
        opt.set_params({"master": value})
    assert opt.hyperparameters["master"] is True
    assert SGD(master=np.True_).hyperparameters["master"] is True
    with pytest.raises(AttributeError, match="set_params"):
        opt.master = False


class Master(NamedTuple):
    master: object


class Other(NamedTuple):
    total: object
    last: object


def optimizer_with(slots, rule, **ranges):
    class Own(xpopt.OptimizerBase):
        def __init__(self, lr=0.5, **kwargs):
            super().__init__(lr, **kwargs)

    Own.slots, Own.rule, Own.ranges = slots, staticmethod(rule), ranges
    return Own


def test_a_rule_whose_own_slot_is_called_so(backend):
    """It cannot have copies, and is otherwise like any rule."""
    make = optimizer_with(Master, lambda xp, p, g, s, h: (p - h.lr * (s.master + g), Master(s.master + g)))
    with pytest.raises(TypeError, match="has a slot 'master' of its own"):
        make(master=True)
    for dtype in low_dtypes(backend):
        opt = make()
        params = train(backend, opt, 2, dtype=dtype)
        with nothing_changes(backend, opt, dtype=dtype), pytest.raises(TypeError, match="a slot 'master' of its own"):
            opt.set_params({"master": True})
        state = opt.state_dict()
        assert [list(p["slots"]) for p in state["header"]["parameters"]] == [["master"]] * 2
        again = make()
        again.load_state_dict(state, like=params)
        assert frozen(backend, train(backend, again, 2, params, dtype)) == frozen(
            backend, train(backend, opt, 2, params, dtype)
        )
        state["header"]["groups"][0]["settings"]["master"] = True
        with nothing_changes(backend, opt, dtype=dtype), pytest.raises(CheckpointError, match="of its own"):
            opt.load_state_dict(state)


@pytest.mark.any_engine
def test_a_rule_of_ones_own_has_copies_for_nothing(backend):
    """Also one that hands on what it got, and one that keeps nothing."""
    rules = {
        "counts": (Other, lambda xp, p, g, s, h: (p - g / (8 * h.t), Other(s.total + g, g))),
        "hands on": (Other, lambda xp, p, g, s, h: (p, Other(s.last, s.total))),
        "keeps nothing": (xpopt.OptimizerBase.slots, lambda xp, p, g, s, h: (p - h.lr * g, s)),
    }
    for slots, rule in rules.values():
        for dtype in low_dtypes(backend):
            low, wide = optimizer_with(slots, rule)(lr=2.0**-9, master=True), optimizer_with(slots, rule)(lr=2.0**-9)
            x, _ = model(backend, dtype)
            y = {name: in_float32(backend, value) for name, value in x.items()}
            for step in range(4):
                _, grads = model(backend, dtype, scale=1 + step)
                x = low.update_all(x, grads)
                y = wide.update_all(y, {name: in_float32(backend, grad) for name, grad in grads.items()})
            for name in MODEL:
                assert same(backend, low.cache[name]["master"], y[name])
                assert same_slots(backend, low.cache[name], wide.cache[name])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("name", ["master", "rounding", "seed", "nonfinite"])
def test_hyperparameters_have_other_names(name):
    make = optimizer_with(Other, lambda xp, p, g, s, h: (p, s), **{name: xpopt.Range(low=0)})
    with pytest.raises(TypeError, match=f"ranges declares '{name}'"):
        make()


@pytest.mark.backends("numpy")
def test_the_source_shows_the_copy():
    for target in ("numpy", "llvm", "cuda"):
        for dtype in ("float16", "bfloat16", "float32"):
            text, plain = (xpopt.kernel_source(Adam(master=master), target, dtype) for master in (True, False))
            assert ("master" in text) is (dtype != "float32")
            assert (text == plain) is (dtype == "float32")
