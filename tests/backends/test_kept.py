"""A model updated again and again: whatever a caller did in between, the step is the one that eager NumPy makes."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
from _kit.bits import dtype_of, dyadic, same_bits
from _kit.engines import MAKE, few_rules

import xpopt
from xpopt._engine.eager.group import EagerGroup
from xpopt._step import whole

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.usefixtures("fused")]

SHAPES = {"a": (4, 5), ("b", 0): (), "c": (7,), "d": (1, 0), "e": (300,)}


class Model:
    """An optimizer with its parameters, of one dtype or of some in turn, and gradients that are new at each step."""

    def __init__(self, make: Any = MAKE["Adam"], *dtypes: str) -> None:
        self.opt = make()
        self.rng = np.random.default_rng(3)
        kinds = itertools.cycle(map(dtype_of, dtypes or ("float32",)))
        self.params = {
            name: np.array(self.rng.standard_normal(shape)).astype(kind)
            for (name, shape), kind in zip(SHAPES.items(), kinds, strict=False)
        }

    def grads(self) -> dict[Any, Any]:
        return {name: dyadic(self.rng, x.shape).astype(x.dtype) for name, x in self.params.items()}

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.opt.update_all(self.params, self.grads(), out=self.params)

    def slot(self, name: Any = "a") -> Any:
        entry = self.opt.cache[name]
        return entry["mean"] if isinstance(entry, dict) else entry


def assert_as_eager(deed: Any, *args: Any) -> None:
    """Demand that three steps, a deed, and three steps more lead where they lead eagerly, in all that there is."""
    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        with engine:
            model = Model(*args)
            model.step(3)
            left = deed(model)
            model.step(3)
            ends.append((model, left))
    (model, left), (want, want_left) = ends
    assert same_bits(model.params, want.params)
    assert same_bits(left, want_left)
    assert same_bits(model.opt.cache, want.opt.cache)
    assert model.opt.cur_step == want.opt.cur_step


# The cache is the only truth


def assign(model: Model) -> None:
    model.opt.cache["a"] = copy.deepcopy(model.opt.cache["a"])
    model.slot()[...] = 3.0


def write(model: Model) -> Any:
    slot = model.slot()
    slot[...] = 2.0
    return slot


def write_later(model: Model) -> Any:
    cache = model.opt.cache
    model.step(2)
    entry = cache["a"]
    (entry["mean"] if isinstance(entry, dict) else entry)[...] = 5.0
    return cache


def take_from_what_is_held(model: Model) -> Any:
    """The entry is no longer the one in use, once a step has been made."""
    cache = model.opt.cache
    model.step()
    entry = cache["a"]
    del cache
    (entry["mean"] if isinstance(entry, dict) else entry)[...] = 5.0
    model.step()
    (entry["mean"] if isinstance(entry, dict) else entry)[...] = 7.0
    return entry


def put_another_slot(model: Model) -> None:
    cache = model.opt.cache
    model.step()
    entry = cache["a"]
    if isinstance(entry, dict):
        entry["mean"] = np.full_like(entry["mean"], 9.0)
    else:
        cache["a"] = np.full_like(entry, 9.0)


def keep_an_entry(model: Model) -> Any:
    entry = model.opt.cache["a"]
    model.step()
    return entry


def pop(model: Model) -> Any:
    return model.opt.cache.pop("a")


def clear(model: Model) -> None:
    model.opt.cache.clear()


def start_over(model: Model) -> None:
    model.opt.cache = {}


def same_entries_in_another_dict(model: Model) -> Any:
    entries = dict(model.opt.cache)
    model.opt.cache = entries
    return entries


def restore(model: Model) -> None:
    saved = copy.deepcopy(model.opt.cache)
    model.step(2)
    model.opt.set_params(cache_dict=saved)


def count(model: Model) -> None:
    for name, t in {"a": 0, "c": 7, "e": 10**6}.items():
        if isinstance(model.opt.cache[name], dict):
            model.opt.cache[name]["t"] = t


def go_on_as(duplicate: Any) -> Any:
    def deed(model: Model) -> Any:
        original, model.opt = model.opt, duplicate(model.opt)
        model.step()
        return original.cache

    return deed


def change(**values: Any) -> Any:
    return lambda model: model.opt.set_params(values)


def rest(*names: Any) -> Any:
    """Steps in which some parameters have no gradient."""

    def deed(model: Model) -> None:
        for step in range(4):
            gone = names[step % len(names) :] if len(names) > 2 else names
            grads = {name: None if name in gone else grad for name, grad in model.grads().items()}
            if step % 2:
                model.params = dict(model.opt.update_all(model.params, grads))
            else:
                model.opt.update_all(model.params, grads, out=model.params)

    return deed


def join_and_leave(model: Model) -> Any:
    model.params["new"] = np.ones(3, np.float32)
    model.step(2)
    return model.params.pop("a")


def update_one(model: Model) -> None:
    model.params["a"] = model.opt.update(model.params["a"], model.grads()["a"], "a")


def replace_arrays(model: Model) -> None:
    model.params = {name: np.array(x, order="F") for name, x in model.params.items()}


def nest(model: Model) -> None:
    """The same names, in other containers and another order."""
    params, grads = (
        {"e": x["e"], "b": [x["b", 0]], "d": x["d"], "c": x["c"], "a": x["a"]} for x in (model.params, model.grads())
    )
    model.opt.update_all(params, grads, out=params)


DEEDS = [
    *(assign, write, write_later, take_from_what_is_held, put_another_slot, keep_an_entry, pop, clear, start_over),
    *(same_entries_in_another_dict, restore, count, join_and_leave, update_one, replace_arrays, nest),
]
MORE_DEEDS = {
    **{deed.__name__: deed for deed in DEEDS},
    "copy": go_on_as(lambda opt: opt.copy()),
    "deepcopy": go_on_as(copy.deepcopy),
    "pickle": go_on_as(lambda opt: pickle.loads(pickle.dumps(opt))),
    "set lr": change(lr=0.5),
    "set clip_norm": change(clip_norm=0.5),
    "one rests": rest("c"),
    "others rest at each step": rest("a", "c", "e"),
}


@pytest.mark.parametrize("deed", MORE_DEEDS.values(), ids=MORE_DEEDS)
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam"])
def test_a_deed_between_steps(backend, name, deed):
    assert_as_eager(deed, MAKE[name])


MIXED = ("float16", "float32", "bfloat16", "float64", "float16")


def set_some_parameters(model: Model) -> None:
    """What a caller changes himself is where their copies go on."""
    for name in ("a", "c"):
        model.params[name] = np.full_like(model.params[name], 0.75)
    model.params["e"][::2] = 0.5


def drop_copies(model: Model) -> None:
    model.opt.set_params({"master": False})
    model.step(2)


def copies_come_and_go(model: Model) -> None:
    for master in (False, True, False, True):
        model.opt.set_params({"master": master})
        model.step(3)


def draw_for_a_while(model: Model) -> None:
    for rounding in ("stochastic", "nearest"):
        model.opt.set_params({"master": False, "rounding": rounding})
        model.step(2)


COPIES = [set_some_parameters, drop_copies, copies_come_and_go, draw_for_a_while]


@pytest.mark.parametrize("deed", COPIES)
@few_rules
def test_a_deed_to_what_has_a_copy(backend, name, deed):
    """In a model of all dtypes, of which some have copies and some have none."""
    assert_as_eager(deed, lambda: MAKE[name](master=True), *MIXED)


@pytest.mark.parametrize("deed", MORE_DEEDS.values(), ids=MORE_DEEDS)
def test_a_deed_between_steps_of_a_model_with_copies(backend, deed):
    assert_as_eager(deed, lambda: MAKE["Adam"](master=True), *MIXED)


@pytest.mark.parametrize("master", [False, True])
def test_a_model_of_all_dtypes_is_kept(backend, monkeypatch, master):
    """From the second step on, nobody takes in its parameters one by one."""
    model, want = (Model(lambda: MAKE["Adam"](master=master), *MIXED) for _ in range(2))
    with xpopt.engine("eager"):
        want.step(6)
    model.step(2)
    monkeypatch.setattr(whole, "check", None)
    model.step(4)
    monkeypatch.undo()
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)


@few_rules
def test_a_clip_that_comes_and_goes(backend, name):
    def deed(model: Model) -> None:
        for clip_norm in (0.5, None, 0.25):
            model.opt.set_params({"clip_norm": clip_norm})
            model.step(2)

    assert_as_eager(deed, MAKE[name])


def test_a_momentum_that_comes_and_goes(backend):
    def deed(model: Model) -> None:
        for momentum in (0.9, 0, 0.5):
            model.opt.set_params({"momentum": momentum})
            model.step(2)

    assert_as_eager(deed, MAKE["SGD"])


def test_another_engine_at_each_step(backend, fused):
    def deed(model: Model) -> None:
        for engine in ("eager", fused, "blocked", "auto", "eager", "auto", fused):
            with xpopt.engine(engine):
                model.step()

    assert_as_eager(deed)


def test_counts_that_differ_are_those_of_separate_calls(backend):
    """1, 1, 7 and 10**6 in one call, which the corrections of Adam see."""
    for dtype in ("float16", "float32", "float64"):
        together, apart = Model(MAKE["Adam"], dtype), Model(MAKE["Adam"], dtype)
        for model in (together, apart):
            model.step()
            for name, t in {"a": 7, "c": 10**6}.items():
                model.opt.cache[name]["t"] = t
        for _ in range(3):
            together.step()
            for name, grad in apart.grads().items():
                apart.opt.update(apart.params[name], grad, name, out=apart.params[name])
            apart.opt.step()
        assert same_bits(together.params, apart.params)
        assert same_bits(together.opt.cache, apart.opt.cache)
        assert [entry["t"] for entry in together.opt.cache.values()] == [10, 4, 10**6 + 3, 4, 4]


OUTS = {
    "another dtype": lambda out: np.empty(out.shape),
    "read-only": lambda out: np.broadcast_to(out[:1], out.shape),
    "another shape": lambda out: out[:2],
}


@pytest.mark.parametrize("fault", OUTS)
@pytest.mark.parametrize("names", [["a"], list(SHAPES)], ids=["one", "all"])
def test_where_results_go_is_looked_at_each_time(backend, names, fault):
    """Also of arrays that are no parameters; a plan of one tensor has no others that these could overlap."""
    model, twin = Model(), Model()
    for one in (model, twin):
        one.params = {name: one.params[name] for name in names}
        out = {name: np.empty_like(x) for name, x in one.params.items()}
        for _ in range(3):
            one.opt.update_all(one.params, one.grads(), out=out)
    with pytest.raises((TypeError, ValueError), match="out of 'a'"):
        model.opt.update_all(model.params, model.grads(), out={**out, "a": OUTS[fault](out["a"])})
    assert same_bits(model.opt.cache, twin.opt.cache)  # to read a cache lets the plan go, so it is done last


# Nothing of the caller's is kept


@pytest.mark.parametrize("way", ["update", "update_all", "update_all in place"])
def test_arrays_are_let_go_at_once(backend, way):
    """Without the garbage collector: there are no cycles."""
    model = Model()
    model.step(2)
    gc.disable()
    try:
        for _ in range(2):
            params, grads = {name: x.copy() for name, x in model.params.items()}, model.grads()
            if way == "update":
                results = [model.opt.update(params["a"], grads["a"], "a")]
            else:
                out = params if way == "update_all in place" else None
                results = list(model.opt.update_all(params, grads, out=out).values())
                out = None
            seen = [weakref.ref(x) for x in (*params.values(), *grads.values(), *results)]
            del params, grads, results
            assert [x() for x in seen] == [None] * len(seen)
    finally:
        gc.enable()


def test_a_forgotten_optimizer_lets_its_state_go(backend):
    model = Model()
    model.step(3)
    slots = [weakref.ref(model.slot(name)) for name in SHAPES]
    model.step(3)
    gc.disable()
    try:
        slots += [weakref.ref(model.slot(name)) for name in SHAPES]
        del model
        assert [x() for x in slots] == [None] * len(slots)
    finally:
        gc.enable()


# What has a plan keeps it


def plan_of(model: Model) -> Any:
    """Return what the last update left for the next one."""
    return model.opt._parts.state.ownership.plan()


def strided(model: Model) -> Any:
    """Let one parameter be every other column of an array, which no engine that fuses takes."""
    model.params["strided"] = model.rng.standard_normal((3, 8)).astype(np.float32)[:, ::2]


@pytest.mark.parametrize("out", [True, False], ids=["in place", "new"])
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam"])
def test_one_eager_tensor_does_not_cost_the_model_its_plan(backend, name, out):
    def steps(model: Model) -> None:
        for _ in range(4):
            grads = model.grads()
            for key in ("strided", "a"):
                model.params[key] = np.repeat(model.params[key], 2, axis=1)[:, ::2]
            new = model.opt.update_all(model.params, grads, out=model.params if out else None)
            model.params = dict(new)

    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        model = Model(MAKE[name])
        strided(model)
        with engine:
            steps(model)
            plan = plan_of(model)
            steps(model)
            assert plan_of(model) is plan
        ends.append((model, plan))
    (model, plan), (want, of_eager) = ends
    assert plan is not None
    assert of_eager is not None
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)


@pytest.mark.parametrize(
    ("settings", "changes", "kept"),
    [
        ({}, {"lr": 0.5}, True),
        ({"clip_norm": 0.5}, {"clip_norm": 0.25, "decay1": 0.5}, True),
        ({"clip_norm": 0.5}, {"clip_norm": None}, False),
        ({"groups": {"[ac]": {"lr": 0.01}}}, {"lr": 0.5}, True),
        ({"groups": {"[ac]": {"lr": 0.01}}}, {"groups": {"[ac]": {"lr": 0.2}}}, True),
        ({"groups": {"[ac]": {"lr": 0.01}}}, {"groups": {"[ae]": {"lr": 0.01}}}, False),
        ({"groups": {"a": {"lr": 0.01}}}, {"groups": {"a": "freeze"}}, False),
        ({}, {"weight_decay": 0.1}, False),
        ({"weight_decay": 0.1}, {"weight_decay": 0.2}, True),
        ({"bounds": (np.zeros(300), None)}, {"bounds": (np.ones(300), None)}, False),
    ],
    ids=str,
)
def test_another_number_does_not_cost_the_model_its_plan(backend, settings, changes, kept):
    """Other rules, and other parameters in a group, do; a second time it is no change."""
    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        model = Model(lambda: MAKE["Adam"](**settings))
        if "bounds" in settings:
            model.params = {"e": model.params["e"]}
        with engine:
            for stays in (kept, True):
                model.step(2)
                plan = plan_of(model)
                model.opt.set_params(changes)
                assert (plan_of(model) is plan) == stays
                model.step(2)
                assert not stays or plan_of(model) is plan
                model.params["e"] = model.opt.update(model.params["e"], model.grads()["e"], "e")
        ends.append(model)
    model, want = ends
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)


def test_slots_that_are_replaced_are_let_go(backend):
    """What the eager engine computes is new at each step, and the plan does not keep the old."""
    model = Model(MAKE["Adam"])
    with xpopt.engine("eager"):
        model.step(2)
        before = [weakref.ref(x) for x in model.opt._parts.state.records["a"].slots]
        assert all(ref() is not None for ref in before)
        model.step()
    gc.collect()
    assert all(ref() is None for ref in before)


def test_a_tensor_that_need_not_be_eager_any_more_is_not(backend):
    """The results of the first step lie side by side."""
    model, want = Model(), Model()
    for one in (model, want):
        strided(one)
    with xpopt.engine("eager"):
        for _ in range(4):
            want.params = dict(want.opt.update_all(want.params, want.grads()))
    plans = []
    for _ in range(4):
        model.params = dict(model.opt.update_all(model.params, model.grads()))
        plans.append(plan_of(model))
    assert plans[0] is not plans[1]
    assert plans[1] is plans[2] is plans[3]
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)


@pytest.mark.parametrize("name", ["SGD-momentum", "Adam"])
def test_an_update_in_between_does_not_cost_the_model_its_plan(backend, name):
    """The counts differ from then on."""

    def steps(model: Model) -> None:
        for key in ("a", "c", "a"):
            model.step(2)
            for _ in range(2):
                model.opt.update(model.params[key], model.grads()[key], key, out=model.params[key])
            model.params["e"] = model.opt.update(model.params["e"], model.grads()["e"], "e")

    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        model = Model(MAKE[name])
        with engine:
            model.step()
            plan = plan_of(model)
            steps(model)
            model.step()
            assert plan_of(model) is plan
        ends.append((model, plan))
    (model, plan), (want, _) = ends
    assert plan is not None
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)
    assert [p["updates"] for p in model.opt.state_dict()["header"]["parameters"]] == [12, 8, 10, 8, 11]


@pytest.mark.parametrize("shared", ["out", "grad"])
def test_what_is_eager_may_not_lie_where_the_plan_writes_or_reads(backend, shared):
    """Asked at each step: an out that shares memory with another is an error, and a gradient is read before."""
    ends = []
    for engine in (contextlib.nullcontext(), xpopt.engine("eager")):
        model = Model()
        strided(model)
        with engine:
            model.step(2)
            grads = model.grads()
            if shared == "out":
                out = {name: np.empty_like(x) for name, x in model.params.items()}
                out["strided"] = out["e"][:24].reshape(3, 8)[:, ::2]
                with pytest.raises(ValueError, match="share memory"):
                    model.opt.update_all(model.params, grads, out=out)
            else:
                held = np.zeros((3, 8), np.float32)
                held[:, ::2] = model.params["strided"]
                model.params["strided"] = held[:, ::2]
                grads["c"] = held.reshape(-1)[:7]
                model.opt.update_all(model.params, grads, out=model.params)
        ends.append(model)
    model, want = ends
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)


@pytest.mark.parametrize("which", ["params", "grads"])
def test_a_list_in_the_place_of_an_eager_tensor_is_a_container(backend, which):
    """As at a first step; a list alone would be taken for an array."""
    model = Model()
    strided(model)
    model.step(2)
    trees = {"params": dict(model.params), "grads": model.grads()}
    trees[which]["strided"] = trees[which]["strided"].tolist()
    with pytest.raises(ValueError, match="names must be those of params"):
        model.opt.update_all(**trees)


def test_views_of_the_same_memory_are_updated_in_place(backend, monkeypatch):
    """Of the same elements, and another object at each call; nothing goes to the eager engine."""
    whole, alone, want = (Model() for _ in range(3))
    with xpopt.engine("eager"):
        for _ in range(4):
            grads = want.grads()
            for name, x in want.params.items():
                want.opt.update(x, grads[name], name, out=x)
    flat = {name: np.concatenate([x.reshape(-1), np.full(3, 7.0, x.dtype)]) for name, x in alone.params.items()}
    of_all = {name: x.copy() for name, x in flat.items()}

    def views(memory: Any) -> Any:
        return {name: memory[name][:-3].reshape(x.shape) for name, x in alone.params.items()}

    monkeypatch.setattr(EagerGroup, "launch", None)
    for _ in range(4):
        grads = alone.grads()
        for name in flat:
            out = views(flat)[name]
            assert alone.opt.update(views(flat)[name], grads[name], name, out=out) is out
        whole.opt.update_all(views(of_all), whole.grads(), out=views(of_all))
    monkeypatch.undo()
    for memory in (flat, of_all):
        assert same_bits(views(memory), want.params)
        assert all((x[-3:] == 7).all() for x in memory.values())
    assert same_bits(alone.opt.cache, want.opt.cache)
    assert same_bits(whole.opt.cache, want.opt.cache)


@pytest.mark.parametrize("what", ["optimizer", "parameters", "gradients"])
def test_what_was_pickled_is_as_fast(backend, what, monkeypatch):
    """Its dtypes are equal to those of other arrays, and other objects; nothing goes to the eager engine."""
    model, want = Model(), Model()
    with xpopt.engine("eager"):
        want.step(6)
    model.step(3)
    if what == "optimizer":
        model.opt = pickle.loads(pickle.dumps(model.opt))
    if what == "parameters":
        model.params = pickle.loads(pickle.dumps(model.params))
        assert model.params["a"].dtype is not np.ones(1, np.float32).dtype
    monkeypatch.setattr(EagerGroup, "launch", None)
    for _ in range(3):
        grads = model.grads()
        grads = pickle.loads(pickle.dumps(grads)) if what == "gradients" else grads
        model.opt.update_all(model.params, grads, out=model.params)
    monkeypatch.undo()
    assert same_bits(model.params, want.params)
    assert same_bits(model.opt.cache, want.opt.cache)
