"""A long walk over everything that a caller may do between updates: every engine goes where eager NumPy does."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
from _kit.bits import dtype_of, dyadic, same_bits
from _kit.engines import MAKE, few_rules, needs_llvmlite

import xpopt
from xpopt._engine.blocked import kernel as blocked
from xpopt._engine.compiled import break_even
from xpopt._engine.compiled import kernel as compiled

pytestmark = pytest.mark.backends("numpy")

SHAPES = [(), (0,), (1,), (7,), (3, 5), (4097,), (2, 20_011)]
DTYPES = ["float32", "float32", "float32", "float64", "float16", "bfloat16"]
NAMES = ["a", "b", ("enc", "w"), 0, "late"]
ENGINES = ["eager", "auto", "blocked", "compiled"]


class Walker:
    """One optimizer with a model, all its updates on one engine; what is drawn comes from outside."""

    def __init__(self, opt: Any, engine: str) -> None:
        self.opt = opt
        self.engine = engine
        self.params: dict[Any, Any] = {}
        self.held: dict[str, Any] = {}

    def slots(self, name: Any) -> list[Any]:
        entry = self.opt.cache.get(name)
        return [x for x in entry.values() if isinstance(x, np.ndarray)] if isinstance(entry, dict) else [entry]

    # Steps

    def update_all(self, draw: random.Random, rng: Any) -> None:
        resting = set(draw.sample(list(self.params), len(self.params) // 2)) if draw.random() < 0.2 else set()
        self.step_of(resting, draw.choice(["new", "in place", "in place", "apart"]), rng)

    def repeat(self, draw: random.Random, rng: Any) -> None:
        """The same again, as in a training: here the kept plan runs."""
        resting = {name for name in self.params if name == "b"} if draw.random() < 0.3 else set()
        where = draw.choice(["new", "in place", "in place", "apart"])
        for _ in range(3):
            self.step_of(resting, where, rng)

    def step_of(self, resting: set[Any], where: str, rng: Any) -> None:
        grads = {name: None if name in resting else self.gradient(name, rng) for name in self.params}
        if where == "in place":
            self.opt.update_all(self.params, grads, out=self.params)
        elif where == "apart":
            out = {name: np.full_like(x, 7) for name, x in self.params.items()}
            self.params = self.opt.update_all(self.params, grads, out=out)
        else:
            self.params = self.opt.update_all(self.params, grads)
        self.params = {name: x if x.flags.writeable else x.copy() for name, x in self.params.items()}

    def update(self, draw: random.Random, rng: Any) -> None:
        name = draw.choice(list(self.params))
        param, grad = self.params[name], self.gradient(name, rng)
        self.params[name] = self.opt.update(param, grad, name, out=param if draw.random() < 0.5 else None)

    def fail(self, draw: random.Random, rng: Any) -> None:
        grads = {name: self.gradient(name, rng) for name in self.params}
        grads[draw.choice(list(self.params))] = np.ones((1, 2, 3))
        with pytest.raises((ValueError, TypeError), match="gradient of"):
            self.opt.update_all(self.params, grads, out=self.params)

    def gradient(self, name: Any, rng: Any) -> Any:
        x = self.params[name]
        return np.asarray(dyadic(rng, x.shape).astype(x.dtype), order="F" if x.flags.f_contiguous else "C")

    # The model

    def join(self, draw: random.Random, rng: Any) -> None:
        name, shape, dtype = draw.choice(NAMES), draw.choice(SHAPES), draw.choice(DTYPES)
        if name not in self.params and name not in self.opt.cache:
            self.params[name] = np.array(rng.standard_normal(shape).astype(dtype_of(dtype)))

    def leave(self, draw: random.Random, rng: Any) -> None:
        if len(self.params) > 1:
            self.params.pop(draw.choice(list(self.params)))

    def move(self, draw: random.Random, rng: Any) -> None:
        """The same values elsewhere, in another memory order, or unaligned."""
        name = draw.choice(list(self.params))
        x = self.params[name]
        how = draw.choice(["copy", "F", "unaligned"])
        if how == "unaligned":
            raw = np.empty(x.nbytes + 1, np.uint8)[1:]
            self.params[name] = raw.view(x.dtype).reshape(x.shape)
            self.params[name][...] = x
        else:
            self.params[name] = np.array(x, order="F" if how == "F" else "K")

    # The state

    def assign(self, draw: random.Random, rng: Any) -> None:
        name = draw.choice(list(self.params))
        if name in self.opt.cache:
            self.opt.cache[name] = copy.deepcopy(self.opt.cache[name])
            for x in self.slots(name)[:1]:
                if x is not None:
                    x[...] = 0.5

    def spoil(self, draw: random.Random, rng: Any) -> None:
        for x in self.slots(draw.choice(list(self.params)))[draw.choice([slice(1), slice(-1, None)])]:
            if x is not None:
                x[...] = 2.0

    def count(self, draw: random.Random, rng: Any) -> None:
        entry, t = self.opt.cache.get(draw.choice(list(self.params))), draw.choice([0, 7, 10**6])
        if isinstance(entry, dict):
            entry["t"] = t

    def forget(self, draw: random.Random, rng: Any) -> None:
        how, name = draw.choice(["pop", "clear", "dict", "empty"]), draw.choice(list(self.params))
        if how == "pop":
            self.opt.cache.pop(name, None)
        elif how == "clear":
            self.opt.cache.clear()
        elif how == "dict":
            self.opt.cache = dict(self.opt.cache)
        else:
            self.opt.cache = {}

    def restore(self, draw: random.Random, rng: Any) -> None:
        self.opt.set_params(cache_dict=copy.deepcopy(self.opt.cache))

    def hold(self, draw: random.Random, rng: Any) -> None:
        self.held = {"cache": self.opt.cache}
        if draw.random() < 0.5:
            self.held = {"entry": self.opt.cache.get(draw.choice(list(self.params)))}

    def take_from_held(self, draw: random.Random, rng: Any) -> None:
        name = draw.choice(list(self.params))
        if "cache" in self.held:
            self.held = {"entry": self.held["cache"].get(name)}

    def touch_held(self, draw: random.Random, rng: Any) -> None:
        name, pop = draw.choice(list(self.params)), draw.random() < 0.3
        entry = self.held.get("entry")
        if "cache" in self.held:
            entry = self.held["cache"].get(name)
            if pop:
                self.held["cache"].pop(name, None)
        if isinstance(entry, dict):
            for key in [key for key in entry if key != "t"][:1]:
                if pop:
                    entry[key] = np.asarray(entry[key] + 1)
                else:
                    entry[key][...] = 3.0
        elif entry is not None:
            entry[...] = 3.0

    def let_go(self, draw: random.Random, rng: Any) -> None:
        self.held = {}

    # The optimizer

    def set(self, draw: random.Random, rng: Any) -> None:
        changes = draw.choice([{"lr": 0.25}, {"lr": 0.125}, {"clip_norm": 0.5}, {"clip_norm": None}])
        if type(self.opt) is xpopt.SGD and draw.random() < 0.5:
            changes = {"momentum": draw.choice([0, 0.9])}
        if draw.random() < 0.3:
            changes = {"master": draw.choice([False, True, True])}
        self.opt.set_params(changes)

    def duplicate(self, draw: random.Random, rng: Any) -> None:
        how = draw.choice(["copy", "deepcopy", "pickle", "leave a copy"])
        if how == "copy":
            self.opt = self.opt.copy()
        elif how == "deepcopy":
            self.opt = copy.deepcopy(self.opt)
        elif how == "pickle":
            self.opt = pickle.loads(pickle.dumps(self.opt))
        else:
            self.held = {"cache": self.opt.copy().cache}


STEPS = [Walker.update_all, Walker.repeat, Walker.update]
DEEDS = [
    *(Walker.fail, Walker.join, Walker.leave, Walker.move, Walker.assign, Walker.spoil, Walker.count, Walker.forget),
    *(Walker.restore, Walker.hold, Walker.take_from_held, Walker.touch_held, Walker.let_go, Walker.set),
    Walker.duplicate,
]


@needs_llvmlite
@pytest.mark.parametrize("seed", range(8))
@few_rules
def test_every_engine_goes_where_eager_numpy_does(backend, name, seed, monkeypatch):
    for engine in (blocked, compiled):  # threads share the work
        monkeypatch.setattr(engine, "SERIAL", 10_000)
    monkeypatch.setattr(compiled, "_FEW", 1)
    monkeypatch.setattr(break_even, "WORTH", 100)
    walkers = [Walker(MAKE[name](), engine) for engine in [*ENGINES, "another at each step"]]
    draw = random.Random(f"{name} {seed}")
    log = []
    for _ in range(60):
        deed = draw.choice(STEPS if draw.random() < 0.5 else DEEDS)
        if len(walkers[0].params) < 2:
            deed = Walker.join
        seed = draw.random()
        engine = draw.choice(ENGINES)
        log.append(deed.__name__)
        for walker in walkers:
            with xpopt.engine(walker.engine if walker.engine in ENGINES else engine), xpopt.num_threads(3):
                deed(walker, random.Random(seed), np.random.default_rng(int(seed * 2**50)))
        look = draw.random() < 0.2
        for walker in walkers[1:]:
            assert same_bits(walkers[0].params, walker.params), (walker.engine, log)
            if look:
                assert same_bits(walkers[0].opt.cache, walker.opt.cache), (walker.engine, log)
            assert walker.opt.cur_step == walkers[0].opt.cur_step
    for walker in walkers[1:]:
        assert same_bits(walkers[0].opt.cache, walker.opt.cache), (walker.engine, log)
