"""`set_params`: all or nothing, and what is saved comes back."""

import pickle
from types import MappingProxyType

import numpy as np
import pytest
from _kit.rows import FULL
from _kit.states import (
    KING,
    OPTIMIZERS,
    RISING,
    SCHEDULERS,
    CountingScheduler,
    equal,
    every_optimizer,
    frozen,
    held,
    model,
    nothing_changes,
    outlook,
    same,
    train,
)
from _kit.table import PROMISES

from xpopt import SGD, Adam, ExponentialScheduler, KingScheduler, make_optimizer

pytestmark = pytest.mark.any_immutable


def test_a_change_acts_from_the_next_update(backend):
    """By hand: W = 0, gradient 1; the rate, then the momentum, then the norm allowed change."""
    opt = SGD(lr=0.5)
    W, g = backend.array([0.0]), backend.array([1.0])
    for change, want in [
        ({}, -0.5),
        ({"lr": 0.25}, -0.75),
        ({"momentum": 1}, -1.0),
        ({}, -1.5),
        ({"clip_norm": 0.5, "momentum": 0.0}, -1.625),
        ({"clip_norm": None, "lr": 1}, -2.625),
        ({"lr_scheduler": "ConstantScheduler(lr=2.0)"}, -4.625),
    ]:
        opt.set_params(change)
        W = opt.update(W, g, "W")
        assert equal(backend, W, [want])


@pytest.mark.parametrize("kind", [dict, MappingProxyType])
@every_optimizer
def test_nothing_given_is_nothing_changed(backend, make, kind):
    opt = make(lr_scheduler=KING)
    params = train(backend, opt, 4)
    opt.update(params["W"], params["W"], "W", 9.0)  # in the middle of a pass, which goes on
    with nothing_changes(backend, opt):
        opt.set_params()
        opt.set_params(None, None)
        opt.set_params(kind({}), kind({}))
        opt.set_params(hparam_dict=kind({"id": type(opt).__name__}))


@every_optimizer
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda text: text.partition("(")[0])
def test_its_own_settings_change_no_setting(backend, make, scheduler):
    opt = make(lr_scheduler=scheduler, clip_norm=3.0)
    train(backend, opt, 1)
    before = held(backend, opt)
    opt.set_params(opt.hyperparameters, opt.cache)
    after = held(backend, opt)
    assert after["hyperparameters"] == before["hyperparameters"]
    assert after["str"] == before["str"]
    assert after["cache"] == before["cache"]
    assert after["cur_step"] == before["cur_step"]


GOOD = {"lr": 0.5, "clip_norm": 9.0}
BAD = [
    ({"momentum": 2.0}, ValueError),
    ({"momentum": "0.5"}, TypeError),
    ({"lr": float("nan")}, ValueError),
    ({"clip_norm": 0}, ValueError),
    ({"eps": 1.0}, KeyError),
    ({"momentun": 0.5}, KeyError),
    ({0: 0.5}, KeyError),
    ({None: 0.5}, KeyError),
    ({("lr",): 0.5}, KeyError),
    ({"id": "Adam"}, ValueError),
    ({"lr_scheduler": "Nonesuch()"}, ValueError),
    ({"lr_scheduler": "NoamScheduler(model_dim=0)"}, ValueError),
    ({"lr_scheduler": "NoamScheduler("}, ValueError),
    ({"lr_scheduler": 3}, TypeError),
    ({"lr_scheduler": KingScheduler}, TypeError),
    ({"lr_scheduler": {"id": "KingScheduler", "patience": 1}}, ValueError),
]


@pytest.mark.parametrize(("bad", "error"), BAD, ids=lambda value: repr(value)[:40])
def test_one_bad_value_spoils_all(backend, bad, error):
    opt = SGD(lr=0.125, momentum=0.5, lr_scheduler=KING)
    train(backend, opt, 2)
    zeros = backend.array(np.zeros((2, 3)))
    with nothing_changes(backend, opt, zeros):
        for order in (1, -1):
            changes = dict(list({**GOOD, **bad}.items())[::order])
            with pytest.raises(error):
                opt.set_params(changes)
            with pytest.raises(error):
                opt.set_params(changes, {"W": zeros, "new": zeros})
            with pytest.raises(error):
                opt.set_params(cache_dict={"W": zeros}, hparam_dict=changes)


@every_optimizer
@pytest.mark.parametrize("scheduler", [None, KING])
def test_one_bad_entry_spoils_all(backend, make, scheduler):
    opt, other = make(lr_scheduler=scheduler), make()
    train(backend, opt, 3)
    train(backend, other, 1)
    good = other.cache["W"]
    with nothing_changes(backend, opt):
        for entries in [{"W": good, "b": object()}, {"b": None, "W": good}, {"W": good, "new": good, "b": {"t": -1}}]:
            for changes in ({}, {"lr": 0.5, "clip_norm": 2.0}, {"lr_scheduler": "noam"}):
                with pytest.raises(ValueError, match="cache of 'b'"):
                    opt.set_params(changes, entries)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_unknown_keys_list_the_known(make):
    opt = make()
    with pytest.raises(KeyError) as error:
        opt.set_params({"nope": 1})
    for name in opt.hyperparameters:
        assert name == "id" or name in str(error.value)


@pytest.mark.parametrize("wrong", [3, "lr", [("lr", 0.5)], {"lr"}, 0.5, ("a", "b")], ids=repr)
def test_what_is_no_mapping_is_refused_by_name(backend, wrong):
    opt = Adam()
    train(backend, opt, 1)
    with nothing_changes(backend, opt):
        with pytest.raises(TypeError, match=f"hparam_dict is a {type(wrong).__name__}; wanted a dict, such as"):
            opt.set_params(wrong)
        with pytest.raises(
            TypeError, match=f"cache_dict is a {type(wrong).__name__}; wanted a dict, such as opt.cache"
        ):
            opt.set_params({"lr": 0.5}, wrong)
        with pytest.raises(TypeError, match=f"hparam_dict is a {type(wrong).__name__}; wanted a dict"):
            opt.lr_scheduler.set_params(wrong)


def test_hyperparameters_are_no_keywords(backend):
    opt = Adam()
    train(backend, opt, 1)
    with (
        nothing_changes(backend, opt),
        pytest.raises(TypeError, match=r"no keyword 'eps'; wanted a dict, \{'lr': 0.1\}"),
    ):
        opt.set_params({"lr": 0.5}, eps=0.5)


@every_optimizer
def test_entries_are_added_and_replaced_and_the_others_stay(backend, make):
    opt, other = make(), make()
    train(backend, opt, 3)
    train(backend, other, 1)
    b, kept = frozen(backend, opt.cache["b"]), opt.cache["b"]
    opt.set_params(cache_dict={"W": other.cache["W"], ("new", 1): other.cache["b"]})
    assert list(opt.cache) == ["W", "b", ("new", 1)]
    assert same(backend, opt.cache["W"], other.cache["W"])
    assert same(backend, opt.cache["new", 1], other.cache["b"])
    assert opt.cache["b"] is kept
    assert frozen(backend, opt.cache["b"]) == b
    params, grads = model(backend)
    fresh = make()
    fresh.set_params(cache_dict=other.cache)
    assert same(backend, opt.update(params["W"], grads["W"], "W"), fresh.update(params["W"], grads["W"], "W"))


@every_optimizer
def test_what_is_given_is_copied(backend, make):
    source, opt, twin = make(), make(), make()
    train(backend, source, 2)
    given = source.copy().cache
    twin.set_params(cache_dict=source.cache)
    opt.set_params(cache_dict=given)
    hyperparameters = {"clip_norm": 5.0}
    opt.set_params(hyperparameters)
    twin.set_params({"clip_norm": 5.0})
    hyperparameters["clip_norm"] = 0.5
    for name, entry in given.items():
        assert opt.cache[name] is not entry or not (backend.mutable or isinstance(entry, dict))
        if isinstance(entry, dict):
            entry["t"] = 77
        for slot in [x for x in (entry.values() if isinstance(entry, dict) else [entry]) if hasattr(x, "shape")]:
            if backend.mutable:
                slot[...] = 77.0
    given.clear()
    assert held(backend, opt) == held(backend, twin)
    assert outlook(backend, opt) == outlook(backend, twin)


@every_optimizer
def test_what_is_saved_comes_back_in_a_fresh_optimizer(backend, make):
    """A training that stopped after 3 steps and went on elsewhere is the one that never stopped, bit for bit."""
    dtypes = backend.dtypes if backend.name in FULL else backend.dtypes[:1]  # a file travels in each of them everywhere
    for dtype, scheduler in [*((dtype, None) for dtype in dtypes), *((None, s) for s in SCHEDULERS[1:3])]:
        opt = make(lr_scheduler=scheduler, clip_norm=0.5)
        params = train(backend, opt, 3, dtype=dtype)
        saved = pickle.loads(pickle.dumps({"hyperparameters": opt.hyperparameters, "cache": opt.cache}))
        assert type(saved["hyperparameters"]) is dict
        fresh = make()
        fresh.set_params(saved["hyperparameters"], saved["cache"])
        made = make_optimizer(saved)
        results = []
        for one in (opt, fresh, made):
            one.cur_step = 3
            results.append(frozen(backend, [train(backend, one, 1, params, dtype), one.cache, str(one)]))
        assert results[1:] == [results[0]] * 2


@every_optimizer
def test_restored_slots_must_fit_the_parameter(backend, make):
    source = make()
    train(backend, source, 1)
    opt = make()
    opt.set_params(cache_dict={"b": source.cache["W"]})
    params, grads = model(backend)
    if "SGD" in str(opt) and opt.hyperparameters["momentum"] == 0:  # nothing there that could be of another shape
        opt.update(params["b"], grads["b"], "b")
        return
    with pytest.raises(ValueError, match="cache of 'b'"):
        opt.update(params["b"], grads["b"], "b")


WITH_SLOTS = {label: row for label, row in PROMISES.items() if row.slots}


@pytest.mark.parametrize(
    ("make", "entry"),
    [
        *[(row.make, lambda x, row=row: row.entry(1, [x, x])) for row in WITH_SLOTS.values()],
        (Adam, lambda x: {"t": 1, "mean": x[:1], "var": x}),
    ],
    ids=[*WITH_SLOTS, "one of Adam's"],
)
def test_slots_are_float32_or_float64(backend, make, entry):
    opt = make()
    xp = backend.xp
    wrong = [xp.zeros((2,), dtype=dtype) for dtype in (xp.int64 if backend.name != "jax" else xp.int32, xp.bool)]
    wrong += [backend.array([0.0, 0.0], dtype) for dtype in backend.dtypes if dtype not in ("float32", "float64")]
    for x in wrong:
        with pytest.raises(ValueError, match="cache of 'W'"):
            opt.set_params(cache_dict={"W": entry(x)})
    assert opt.cache == {}


def test_slots_of_one_entry_are_alike(backend):
    x, y = backend.array([1.0, 2.0]), backend.array([1.0])
    pairs = [(x, y), (y, x)]
    pairs += [(x, backend.array([1.0, 2.0], "float32"))] if backend.widest == "float64" else []
    pairs += [(x, np.ones(2, dtype=np.dtype(backend.widest)))] if backend.library != "numpy" else []
    for mean, var in pairs:
        with pytest.raises(ValueError, match=r"cache of 'W' holds 'mean' as .* and 'var' as .*; wanted slots") as error:
            Adam().set_params(cache_dict={"W": {"t": 1, "mean": mean, "var": var}})
        for slot in (mean, var):
            assert str(tuple(slot.shape)) in str(error.value)
            assert str(slot.dtype).rpartition(".")[2] in str(error.value)


RATES = [
    ({}, 0.125),
    ({"lr": 0.5}, 0.5),
    ({"lr": 0.5, "lr_scheduler": None}, 0.5),
    ({"lr": 0.5, "lr_scheduler": "exponential"}, 0.5),
    ({"lr": 0.5, "lr_scheduler": {"id": "KingScheduler"}}, 0.5),
    ({"lr": 0.5, "lr_scheduler": "ConstantScheduler(lr=0.25)"}, 0.25),
    ({"lr_scheduler": "ConstantScheduler(lr=0.25)", "lr": 0.5}, 0.25),
    ({"lr": 0.5, "lr_scheduler": {"id": "ExponentialScheduler", "initial_lr": 0.25}}, 0.25),
    ({"lr": 0.5, "lr_scheduler": ExponentialScheduler(initial_lr=0.25)}, 0.25),
    ({"lr": 0.5, "lr_scheduler": KingScheduler()}, 0.01),
    ({"lr_scheduler": "exponential"}, 0.125),
    ({"lr_scheduler": "NoamScheduler(model_dim=4, scale_factor=3, warmup_steps=1)"}, 1.5),
    ({"lr": 0.5, "lr_scheduler": "NoamScheduler(model_dim=4, scale_factor=3, warmup_steps=1)"}, 1.5),
]


@pytest.mark.parametrize(("changes", "rate"), RATES, ids=repr)
@every_optimizer
def test_which_rate_wins(backend, make, changes, rate):
    """At construction and in `set_params` alike; the rate shown is the one that acts."""
    made, changed = make(**changes), make(lr_scheduler="exponential")
    changed.set_params(changes)
    x = backend.array([0.0])
    for opt in (made, changed):
        reference = make(lr=rate)
        assert same(
            backend, opt.update(x, backend.array([1.0]), "W", 1.0), reference.update(x, backend.array([1.0]), "W", 1.0)
        )
        noam = "Noam" in opt.hyperparameters["lr_scheduler"]
        assert opt.hyperparameters["lr"] == (changes.get("lr", 0.125) if noam else rate)


def test_a_new_lr_is_the_starting_rate_of_the_present_schedule(backend):
    opt = SGD(lr_scheduler="ExponentialScheduler(initial_lr=0.5, stage_length=1, decay=0.5)")
    opt.cur_step = 3
    opt.set_params({"lr": 2.0})
    assert opt.hyperparameters["lr_scheduler"] == (
        "ExponentialScheduler(initial_lr=2.0, stage_length=1, staircase=False, decay=0.5)"
    )
    assert opt.cur_step == 3
    assert equal(backend, opt.update(backend.array([0.0]), backend.array([-1.0]), "W"), [0.25])


def test_king_starts_over_with_a_new_lr(backend):
    opt = SGD(lr=0.125, lr_scheduler=KING)
    train(backend, opt, 5)
    assert opt.lr_scheduler.state() == {"rate": 0.125 / 4, "losses": RISING[1:5]}
    opt.set_params({"lr": 0.5})
    assert opt.lr_scheduler.state() == {"rate": 0.5, "losses": []}
    assert opt.hyperparameters["lr_scheduler"] == "KingScheduler(initial_lr=0.5, patience=2, decay=0.5)"
    opt.set_params({"clip_norm": 100.0})  # and with nothing else
    train(backend, opt, 1)
    opt.set_params({"momentum": 0.5})
    assert opt.lr_scheduler.state()["losses"] == RISING[:1]


def test_noam_records_lr_only(backend):
    noam = "NoamScheduler(model_dim=4, scale_factor=1, warmup_steps=1)"
    opt = SGD(lr=0.125, lr_scheduler=noam)
    opt.set_params({"lr": 0.75})
    assert opt.hyperparameters["lr_scheduler"] == noam
    assert opt.hyperparameters["lr"] == 0.75
    assert equal(backend, opt.update(backend.array([0.0]), backend.array([-1.0]), "W"), [0.5])
    opt.lr_scheduler = None
    assert str(opt.lr_scheduler) == "ConstantScheduler(lr=0.75)"


def test_a_scheduler_given_is_copied(backend):
    """Two optimizers never share a history."""
    scheduler = KingScheduler(initial_lr=0.125, patience=2, decay=0.5)
    made, changed, assigned = SGD(lr_scheduler=scheduler), SGD(), SGD()
    changed.set_params({"lr_scheduler": scheduler})
    assigned.lr_scheduler = scheduler
    for opt in (made, changed, assigned):
        assert opt.lr_scheduler is not scheduler
        train(backend, opt, 5)
        assert opt.lr_scheduler.state()["rate"] == 0.125 / 4
    assert scheduler.state() == {"rate": 0.125, "losses": []}
    scheduler.set_params({"initial_lr": 0.5})
    assert made.hyperparameters["lr"] == 0.125
    assert made.lr_scheduler is not changed.lr_scheduler


def test_a_schedule_takes_its_history_along(backend):
    first = SGD(lr_scheduler=KING)
    train(backend, first, 5)
    second = SGD(lr_scheduler=first.lr_scheduler)
    assert second.lr_scheduler.state() == first.lr_scheduler.state()


def test_assigning_lr_scheduler_is_set_params(backend):
    opt, other = SGD(lr=0.125), SGD(lr=0.125)
    for spec in ["exponential", {"id": "NoamScheduler"}, CountingScheduler(), None, KING]:
        opt.lr_scheduler = spec
        other.set_params({"lr_scheduler": spec})
        assert held(backend, opt) == held(backend, other)
    with nothing_changes(backend, opt), pytest.raises(ValueError, match="unknown scheduler"):
        opt.lr_scheduler = "Nonesuch"


def test_what_the_schedule_is_told_acts(backend):
    opt = SGD(lr=0.125)
    opt.lr_scheduler.set_params({"lr": 0.5})
    assert opt.hyperparameters["lr"] == 0.5
    assert equal(backend, opt.update(backend.array([0.0]), backend.array([-1.0]), "W"), [0.5])


def test_an_eps_that_rounds_to_0_for_a_parameter_that_is_there_is_refused(backend):
    opt, W = Adam(), backend.array([1.0], "float32")
    opt.update(W, W, "scale")
    with nothing_changes(backend, opt), pytest.raises(ValueError, match=r"eps=1e-50 rounds to 0 in float32.*'scale'"):
        opt.set_params({"eps": 1e-50})
