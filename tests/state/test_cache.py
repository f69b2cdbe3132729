"""The cache is the only truth about state: its forms, its values, and what a caller does to it."""

import copy
import gc
import math
import pickle
import weakref
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest
from _kit.rows import rows
from _kit.states import equal, every_optimizer, frozen, held, model, nothing_changes, same, train, writes
from _kit.table import PROMISES

from xpopt import SGD, AdaGrad, Adam, RMSProp

pytestmark = pytest.mark.any_width

BARE = [
    pytest.param(lambda: SGD(lr=0.5, momentum=0.5), [0.5, 0.75], id="SGD"),
    pytest.param(AdaGrad, [1.0, 2.0], id="AdaGrad"),
    pytest.param(lambda: RMSProp(decay=0.5), [0.5, 0.75], id="RMSProp"),
]
WITH_SLOTS = {label: partial(row.make, lr=0.125) for label, row in PROMISES.items() if row.slots}
SLOTTED = pytest.mark.parametrize("make", WITH_SLOTS.values(), ids=WITH_SLOTS)


def library(x):
    return type(x).__module__.partition(".")[0]


@pytest.mark.parametrize(("make", "values"), BARE)
def test_one_slot_without_a_count_is_the_entry(backend, make, values):
    """The slot is worked out by hand, for a gradient of ones."""
    for dtype in backend.dtypes:
        opt = make()
        W = backend.array([[3.0, 4.0, 5.0]], dtype)
        g = backend.array([[1.0, 1.0, 1.0]], dtype)
        for value in values:
            W = opt.update(W, g, "W")
            slot = opt.cache["W"]
            assert equal(backend, slot, [[value] * 3])
            assert library(slot) == library(g)
            assert slot.dtype == backend.dtype("float64" if dtype == "float64" else "float32")


def test_a_count_and_two_slots_are_a_dict(backend):
    for dtype in backend.dtypes:
        opt = Adam(decay1=0.5, decay2=0.75)
        W = g = backend.array([1.0, 1.0], dtype)
        for t, mean, var in [(1, 0.5, 0.25), (2, 0.75, 0.4375)]:
            W = opt.update(W, g, "W")
            entry = opt.cache["W"]
            assert type(entry) is dict
            assert list(entry) == ["t", "mean", "var"]
            assert entry["t"] == t
            assert type(entry["t"]) is int
            assert equal(backend, entry["mean"], [mean] * 2)
            assert equal(backend, entry["var"], [var] * 2)
            for slot in (entry["mean"], entry["var"]):
                assert library(slot) == library(g)
                assert slot.dtype == backend.dtype("float64" if dtype == "float64" else "float32")


def test_sgd_without_momentum_has_no_slot(backend):
    opt = SGD()
    W = backend.array([1.0, 1.0])
    for t in (1, 2, 3):
        opt.update(W, W, "W")
        assert opt.cache == {"W": {"t": t}}


def test_a_momentum_set_later_starts_from_rest(backend):
    """Velocities by hand: 0.5 g, then a step that remembers nothing, then 0.5 g again."""
    opt = SGD(lr=0.5, momentum=0.5)
    g = backend.array([1.0, 2.0])
    W = backend.array([0.0, 0.0])
    for momentum, want in [(0.5, [-0.5, -1.0]), (0.5, [-1.25, -2.5]), (0, [-1.75, -3.5]), (0.5, [-2.25, -4.5])]:
        opt.set_params({"momentum": momentum})
        W = opt.update(W, g, "W")
        assert equal(backend, W, want)
    assert equal(backend, opt.cache["W"], [0.5, 1.0])


@pytest.mark.parametrize("plain_first", [False, True])
def test_momentum_comes_and_goes(backend, plain_first):
    opt = SGD(lr=0.125, momentum=0.0 if plain_first else 0.5)
    params, _ = model(backend)
    for momentum in (0.5, 0, 0, 0.5, 0.5, 0):
        opt.set_params({"momentum": momentum})
        params = train(backend, opt, 1, params)
        assert isinstance(opt.cache["W"], dict) == (momentum == 0)
        x = backend.array([1.0])
        with nothing_changes(backend, opt), pytest.raises(ValueError, match="'W'"):
            opt.update(x, x, "W")


def forget_all(opt):
    opt.cache = {}


def forget_each(opt):
    for name in list(opt.cache):
        del opt.cache[name]


def forget_by_clear(opt):
    opt.cache.clear()


def keep_all(opt):
    opt.cache = dict(opt.cache)


def copy_all(opt):
    opt.cache = {name: copy.deepcopy(entry) for name, entry in opt.cache.items()}


def restore_all(opt):
    opt.set_params(cache_dict=opt.cache)


def copy_each(opt):
    for name, entry in opt.cache.items():
        opt.cache[name] = copy.deepcopy(entry)


def counts(opt):
    return [parameter["updates"] for parameter in opt.state_dict()["header"]["parameters"]]


@pytest.mark.parametrize(
    "put_back", rows({of.__name__: of for of in (keep_all, copy_all, restore_all, copy_each)}, ["copy_each"])
)
@every_optimizer
def test_a_count_lives_until_its_name_is_deleted(backend, make, put_back):
    """Also that of a parameter whose entry is a bare array, which does not say it."""
    opt = make()
    params = train(backend, opt, 3)
    for count in (3, 4):
        for again in (opt, opt.copy(), pickle.loads(pickle.dumps(opt))):
            put_back(again)
            assert counts(again) == [count] * 2
            assert counts(again.copy()) == [count] * 2
        put_back(opt)
        params = train(backend, opt, 1, params)
    loaded = make()
    loaded.load_state_dict(opt.state_dict())  # which has met no parameter yet
    put_back(loaded)
    assert counts(loaded) == counts(loaded.copy()) == [5, 5]
    train(backend, loaded, 1, params)
    assert counts(loaded) == [6, 6]
    loaded.cache = {"W": loaded.cache["W"]}
    train(backend, loaded, 1, params)
    assert counts(loaded) == [7, 1]


@every_optimizer
def test_a_count_stays_with_its_optimizer(backend, make):
    """Between optimizers it travels by `state_dict`; what a dict has in its entry goes with that."""
    opt, fresh = make(), make()
    train(backend, opt, 3)
    fresh.set_params(cache_dict=opt.cache)
    assert counts(fresh) == [3 if isinstance(opt.cache[name], dict) else 0 for name in opt.cache]


@pytest.mark.parametrize(
    "forget", rows({of.__name__: of for of in (forget_all, forget_each, forget_by_clear)}, ["forget_each"])
)
@every_optimizer
def test_what_is_forgotten_starts_over(backend, make, forget):
    opt, fresh = make(), make()
    train(backend, opt, 3)
    forget(opt)
    assert opt.cache == {}
    for shape, dtype in [((2, 3), backend.dtypes[0]), ((4,), backend.widest)]:
        forget(opt)
        W = g = backend.array(np.ones(shape), dtype)
        V = W
        for _ in range(2):
            W, V = opt.update(W, g, "W"), fresh.update(V, g, "W")
            assert same(backend, W, V)
        assert same(backend, opt.cache, fresh.cache)
        fresh = make()


@every_optimizer
def test_one_name_is_forgotten_alone(backend, make):
    opt, other = make(), make()
    train(backend, opt, 3)
    train(backend, other, 3)
    del opt.cache["W"]
    x = backend.array([1.0])
    opt.update(x, x, "W")
    params, grads = model(backend)
    assert same(backend, opt.update(params["b"], grads["b"], "b"), other.update(params["b"], grads["b"], "b"))


@SLOTTED
def test_what_is_changed_in_place_is_used(backend, make):
    """Zeros written into the state, and a count of 0, make a fresh start."""
    opt, fresh = make(), make()
    params = train(backend, opt, 3)
    entry = opt.cache["W"]
    zeros = backend.array(np.zeros((2, 3)))
    if isinstance(entry, dict):
        entry["t"] = 0
        for slot in ("mean", "var"):
            if backend.mutable:
                entry[slot][...] = zeros
            else:
                entry[slot] = zeros
    elif backend.mutable:
        entry[...] = zeros
    else:
        opt.cache["W"] = zeros
    _, grads = model(backend)
    assert same(backend, opt.update(params["W"], grads["W"], "W"), fresh.update(params["W"], grads["W"], "W"))
    assert same(backend, opt.cache["W"], fresh.cache["W"])


@SLOTTED
def test_what_is_assigned_is_used(backend, make):
    """The state of one optimizer goes on in another, entry by entry, by whatever name, and all at once."""
    opt = make()
    params = train(backend, opt, 3)
    _, grads = model(backend)
    one, whole, renamed = make(), make(), make()
    one.cache["W"] = opt.copy().cache["W"]
    whole.cache = opt.copy().cache
    renamed.cache["V"] = opt.copy().cache["W"]
    want = opt.update(params["W"], grads["W"], "W")
    for other, name in [(one, "W"), (whole, "W"), (renamed, "V")]:
        assert same(backend, other.update(params["W"], grads["W"], name), want)
        assert same(backend, other.cache[name], opt.cache["W"])


@SLOTTED
def test_an_entry_may_move_to_another_name(backend, make):
    opt, other = make(), make()
    params = train(backend, opt, 2)
    train(backend, other, 2)
    opt.cache["V"] = opt.cache.pop("W")
    _, grads = model(backend)
    for _ in range(2):
        got, want = (o.update(params["W"], grads["W"], n) for o, n in ((opt, "V"), (other, "W")))
        assert same(backend, got, want)
    x = backend.array([1.0])
    opt.update(x, x, "W")
    assert set(opt.cache) == {"W", "V", "b"}


@SLOTTED
@pytest.mark.parametrize("keep", ["another name", "another optimizer", "a dict"])
def test_what_was_taken_from_the_cache_stays_as_it_was_taken(backend, make, keep):
    """An entry that stands under a second name, in a second optimizer or in a dict does not move with the first."""
    opt, other = make(), make()
    params = train(backend, opt, 2)
    _, grads = model(backend)
    want = frozen(backend, opt.copy().update(params["W"], grads["W"], "W"))
    if keep == "another name":
        opt.cache["V"] = opt.cache["W"]
    elif keep == "another optimizer":
        other.cache = opt.cache
    saved = dict(opt.cache)
    before = frozen(backend, saved)
    for _ in range(2):
        opt.update(params["W"], grads["W"], "W")
    assert frozen(backend, saved) == before
    if keep == "a dict":
        other.set_params(cache_dict=saved)
    got = (
        opt.update(params["W"], grads["W"], "V")
        if keep == "another name"
        else other.update(params["W"], grads["W"], "W")
    )
    assert frozen(backend, got) == want


def test_swapped_slots_are_swapped(backend):
    opt, other = Adam(lr=0.125), Adam(lr=0.125)
    W = g = backend.array([1.0, 2.0])
    opt.update(W, g, "W")
    entry = opt.cache["W"]
    other.cache["W"] = {"t": 1, "mean": entry["var"], "var": entry["mean"]}
    entry["mean"], entry["var"] = entry["var"], entry["mean"]
    assert same(backend, opt.update(W, g, "W"), other.update(W, g, "W"))
    assert same(backend, opt.cache["W"], other.cache["W"])


def test_the_count_in_the_entry_is_the_count(backend):
    """At t = 1000 Adam's corrections are nearly gone; a count that was kept beside the cache would not notice."""
    opt = Adam(lr=0.5, decay1=0.5, decay2=0.5)
    W = g = backend.array([1.0])
    opt.update(W, g, "W")
    opt.cache["W"]["t"] = 999
    got = opt.update(W, g, "W")
    assert opt.cache["W"]["t"] == 1000
    assert math.isclose(float(backend.numpy(got)[0]), 1 - 0.5 * 0.75 / math.sqrt(0.75), rel_tol=1e-5)


def test_the_dict_assigned_stays_the_callers(backend):
    given = {}
    opt = Adam()
    opt.cache = given
    train(backend, opt, 1)
    assert given == {}
    opt.cache = MappingProxyType(opt.cache)
    train(backend, opt, 1)
    assert type(opt.cache) is dict
    assert opt.cache["W"]["t"] == 2


@pytest.mark.parametrize("cache", [None, 3, "W", [("W", 1)], {"W"}], ids=repr)
def test_a_cache_is_a_mapping(backend, cache):
    opt = Adam()
    train(backend, opt, 1)
    with nothing_changes(backend, opt), pytest.raises(TypeError, match=r"cache is a .*wanted a dict"):
        opt.cache = cache


def garbage(backend):
    x = backend.array(np.zeros((2, 3)))
    return [
        None,
        3,
        1.5,
        "mean",
        [],
        {},
        (x, x),
        {"t": -1},
        {"t": True},
        {"t": 1.0},
        {"t": "1"},
        {"mean": x, "var": x},
        {"t": 1, "mean": x},
        {"t": 1, "mean": x, "var": x, "more": x},
        {"t": 1, "mean": x, "variance": x},
        {"t": 1, "mean": x, "var": None},
        {"t": 1, "mean": 0.0, "var": 0.0},
        {"t": -1, "mean": x, "var": x},
        {"t": 1.0, "mean": x, "var": x},
        {"t": None, "mean": x, "var": x},
        {"t": 1, "velocity": x},
    ]


@every_optimizer
def test_an_entry_of_another_form_is_refused_by_name(backend, make):
    opt = make()
    params = train(backend, opt, 1)
    _, grads = model(backend)
    for entry in garbage(backend):
        opt.cache["W"] = entry
        before = held(backend, opt)
        with pytest.raises(ValueError, match="cache of 'W'"):
            opt.update(params["W"], grads["W"], "W")
        with pytest.raises(ValueError, match="cache of 'W'"):
            opt.update_all(params, grads)
        assert held(backend, opt) == before
        assert opt.cache["W"] is entry
        with pytest.raises(ValueError, match="cache of 'W'"):
            make().set_params(cache_dict={"W": entry})
    del opt.cache["W"]
    fresh = make()
    assert same(backend, opt.update(params["W"], grads["W"], "W"), fresh.update(params["W"], grads["W"], "W"))


@SLOTTED
def test_slots_unlike_the_parameter_are_refused_by_name(backend, make):
    opt = make()
    params = train(backend, opt, 1)
    _, grads = model(backend)
    others = [backend.array(np.zeros((3, 2))), backend.array(0.0), backend.array(np.zeros((2, 3, 1)))]
    others += [backend.array(np.zeros((2, 3)), dtype) for dtype in backend.dtypes if dtype != backend.widest]
    others += [backend.xp.zeros((2, 3), dtype=backend.xp.int32), backend.xp.zeros((2, 3), dtype=backend.xp.bool)]
    if backend.library != "numpy":
        others += [np.zeros((2, 3))]
    for x in others:
        entry = {"t": 1, "mean": opt.cache["b"]["mean"], "var": x} if isinstance(opt.cache["b"], dict) else x
        if isinstance(entry, dict):
            entry["mean"] = backend.array(np.zeros((2, 3)))
        opt.cache["W"] = entry
        before = held(backend, opt) if x is not others[-1] or backend.library == "numpy" else None
        with pytest.raises(ValueError, match="cache of 'W'") as error:
            opt.update(params["W"], grads["W"], "W")
        assert str((2, 3)) in str(error.value)
        assert str(tuple(x.shape)) in str(error.value)
        assert before is None or held(backend, opt) == before


@pytest.mark.parametrize("make", [AdaGrad, RMSProp], ids=["AdaGrad", "RMSProp"])
def test_a_count_alone_is_the_state_of_sgd_only(backend, make):
    opt = make()
    params = train(backend, opt, 1)
    with nothing_changes(backend, opt), pytest.raises(ValueError, match="cache of 'W'"):
        opt.set_params(cache_dict={"W": {"t": 3}})
    opt.cache["W"] = {"t": 3}
    with pytest.raises(ValueError, match="cache of 'W'"):
        opt.update(params["W"], params["W"], "W")


@writes
@every_optimizer
def test_the_result_and_the_state_share_no_memory(backend, make):
    opt = make()
    W = train(backend, opt, 2)["W"]
    before = frozen(backend, opt.cache)
    W[...] = backend.array(np.full((2, 3), 77.0))
    assert frozen(backend, opt.cache) == before
    entry = opt.cache["W"]
    values = frozen(backend, W)
    for slot in list(entry.values())[1:] if isinstance(entry, dict) else [entry]:
        slot[...] = backend.array(np.full((2, 3), 55.0))
        assert frozen(backend, W) == values
    if isinstance(entry, dict) and "mean" in entry:
        entry["mean"][...] = backend.array(np.full((2, 3), 11.0))
        assert equal(backend, entry["var"], np.full((2, 3), 55.0))


@pytest.mark.parametrize("make", [AdaGrad, Adam], ids=["AdaGrad", "Adam"])
def test_what_is_forgotten_is_let_go(make):
    opt = make()
    opt.update(np.ones(3), np.ones(3), "W")
    entry = opt.cache["W"]
    slot = weakref.ref(entry["mean"] if isinstance(entry, dict) else entry)
    del entry, opt.cache["W"]
    opt.step()
    gc.collect()
    assert slot() is None
