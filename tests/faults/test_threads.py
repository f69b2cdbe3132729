"""Different optimizers in different threads: each goes where it goes alone, from the first use of anything on."""

from __future__ import annotations

import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, same_bits
from _kit.engines import FEW, MAKE, Two, forget_what_was_made, needs_llvmlite, of_rule
from _kit.trajectories import read

import xpopt
from xpopt._arrays import namespace
from xpopt._engine import choice, choose, pool
from xpopt._engine import kernels as one_cache
from xpopt._engine.blocked import kernel as blocked
from xpopt._engine.compiled import build
from xpopt._engine.compiled import group as kept_compiled
from xpopt._engine.compiled import kernel as compiled
from xpopt._engine.kernel import Variant
from xpopt._graph.rule import NoSlots
from xpopt.optimizers import base

THREADS = 4
LONG = 60  # seconds, after which a thread that waits for others is an error


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Let threads take turns after every few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def first_use(monkeypatch, tmp_path) -> None:
    """Forget all that the package keeps for the next update, on disk too."""
    for module, name in [
        (choose, "_warned"),
        (namespace, "_OTHERS"),
        (namespace, "_LIBRARIES"),
        (namespace, "_NAMED"),
    ]:
        monkeypatch.setattr(module, name, {})
    forget_what_was_made(monkeypatch)
    for cls in [cls for cls in xpopt.OptimizerBase.__subclasses__() if "_rule_once" in vars(cls)]:
        monkeypatch.delattr(cls, "_rule_once")
    for function in (compiled._squares, kept_compiled._reader):
        function.cache_clear()
    monkeypatch.setattr(pool, "_pool", pool._Pool())
    monkeypatch.setenv("XPOPT_CACHE_DIR", str(tmp_path / "kernels"))


def at_once(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Call each in a thread of its own, all from the same moment on, on this context's engine; return the results."""
    barrier, engine = threading.Barrier(len(tasks)), choice.chosen()
    results: list[Any] = [None] * len(tasks)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            with xpopt.engine(engine):
                barrier.wait(LONG)
                results[i] = tasks[i]()
        except BaseException as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return results


def assert_as_alone(tasks: Sequence[Callable[[], Any]]) -> None:
    together = at_once(tasks)
    for task, result in zip(tasks, together, strict=True):
        assert same_bits(result, task())


SMALL = {"W": (7, 5), "b": (5,), "gain": (), "none": (0, 3)}
LARGE = {"W": (1_200_007,), "b": (40_000,), "gain": ()}  # helper threads join


def training(make: Callable[..., Any], shapes: Any, steps: int, seed: int, dtype: str = "float32") -> Any:
    """Return a function that trains a model in every way, and returns its parameters and state."""
    rng = np.random.default_rng(seed)
    start = {name: cast(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}
    grads = {name: cast(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}

    def train() -> Any:
        opt, params = make(), {name: x.copy() for name, x in start.items()}
        with xpopt.num_threads(2 + seed % 3):
            for _ in range(steps):
                opt.update_all(params, grads, out=params)
                params = opt.update_all(params, grads)
                params["b"] = opt.update(params["b"], grads["b"], "b")
        return {"params": params, "state": dict(opt.cache)}

    return train


# The same bits


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize(("shapes", "steps"), [(SMALL, 50), (LARGE, 2)], ids=["small", "large"])
def test_each_goes_where_it_goes_alone(fused, backend, shapes, steps, clip_norm):
    makes = [lambda make=make: make(clip_norm=clip_norm) for make in map(MAKE.get, FEW)]
    assert_as_alone([training(make, shapes, steps, seed) for seed, make in enumerate(makes)])


@pytest.mark.backends("numpy")
def test_eagerly_as_well(eager, backend):
    assert_as_alone([training(make, SMALL, 20, seed) for seed, make in enumerate(map(MAKE.get, FEW))])


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
def test_the_first_use_of_everything(fused, backend, first_use, shapes):
    """Tracing, compiling, the folder of kernels, the pool: four optimizers of one class, two of another."""
    makes = [MAKE["Adam"]] * 4 + [MAKE["SGD-momentum"]] * 2
    dtypes = ["float32", "float64"] * 3
    tasks = [training(make, shapes, 1, seed, dtypes[seed]) for seed, make in enumerate(makes)]
    assert_as_alone(tasks)


@pytest.mark.backends("numpy")
def test_the_first_use_of_rules_of_ones_own(fused, backend, first_use):
    def rule(xp, param, grad, s, h):
        fast = 0.5 * s.fast + grad
        return param - h.lr * fast / h.t, Two(fast, s.slow + fast)

    for _ in range(1 if fused == "compiled" else 25):
        own = of_rule(rule)
        assert_as_alone([training(own, SMALL, 2, seed) for seed in range(THREADS)])


def test_arrays_of_every_library(backend):
    """Also where one gradient goes to all of them."""
    values = [[0.5, -1.0, 2.0], [1.0, 0.25, -3.0]]
    grad = backend.array([1.0, -0.5, 0.125])

    def training(seed: int, make: Any) -> Callable[[], Any]:
        def train() -> Any:
            opt = make()
            W = backend.array(np.asarray(values) * (seed + 1))
            b = backend.array(values[0])
            for _ in range(3):
                model = opt.update_all({"W": W, "b": b}, {"W": W, "b": grad})
                W, b = model["W"], opt.update(model["b"], grad, "b")
            return {"W": read(backend, W), "b": read(backend, b)}

        return train

    assert_as_alone([training(seed, make) for seed, make in enumerate(map(MAKE.get, FEW))])


@pytest.mark.backends("numpy")
def test_texts_copies_and_settings(fused, backend):
    def live(seed: int) -> Any:
        opt = xpopt.make_optimizer(f"Adam(lr=0.{seed + 1}, lr_scheduler='NoamScheduler(warmup_steps=5)')")
        params = {"W": np.full((3, 4), float(seed)), "b": np.ones(4)}
        for step in range(20):
            params = opt.update_all(params, {name: np.cos(x) for name, x in params.items()})
            opt = [opt.copy, lambda opt=opt: pickle.loads(pickle.dumps(opt)), lambda opt=opt: opt][step % 3]()
            if step % 5 == 0:
                opt.set_params({"clip_norm": 1.0 + seed}, opt.cache)
                opt.explain(params)
                twin = xpopt.make_optimizer(str(opt))
                twin.load_state_dict(opt.state_dict(), like=params)
                opt = twin
        return {**params, "opt": str(opt), "step": opt.cur_step}

    assert_as_alone([lambda seed=seed: live(seed) for seed in range(THREADS)])


# One optimizer


@pytest.mark.backends("numpy")
@pytest.mark.parametrize("threads", [2, 3])
def test_a_call_that_returns_has_happened_and_one_that_raises_has_not(fused, backend, threads):
    """Threads take an optimizer from each other all the time: what is refused changes nothing, and nothing is lost."""
    opt, params, grads = xpopt.SGD(lr=1.0), {"W": np.zeros(3000)}, {"W": np.ones(3000)}
    refused: list[RuntimeError] = []

    def train() -> int:
        made = 0
        with xpopt.num_threads(1):
            while made < 300 or not (refused or made == 100_000):  # until they have met
                try:
                    opt.update_all(params, grads, out=params)
                    made += 1
                except RuntimeError as error:
                    refused.append(error)
                    time.sleep(0)
        return made

    made = sum(at_once([train] * threads))
    assert refused
    assert opt.cur_step == opt.cache["W"]["t"] == made
    assert set(params["W"].tolist()) == {-float(made)}


@pytest.mark.backends("numpy")
def test_threads_may_copy_one_optimizer_at_once(backend):
    opt, W = xpopt.Adam(), np.ones(3)
    opt.update(W, W, "W")
    twins = at_once([lambda: [opt.copy() for _ in range(50)]] * THREADS)
    assert all(same_bits(twin.cache, opt.cache) for copies in twins for twin in copies)


@pytest.mark.backends("numpy")
def test_what_another_thread_updates_cannot_be_copied_or_changed(backend):
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(xpopt.SchedulerBase):
        def learning_rate(self, step: int, cur_loss: float | None = None) -> float:
            inside.set()
            assert go_on.wait(LONG)
            return 0.5

    opt, W = xpopt.SGD(lr_scheduler=Waiting()), np.ones(3)
    thread = threading.Thread(target=opt.update, args=(W, W, "W"))
    thread.start()
    assert inside.wait(LONG)
    try:
        for call in (opt.copy, opt.state_dict, opt.step, lambda: pickle.dumps(opt), lambda: opt.set_params({"lr": 1})):
            with pytest.raises(RuntimeError, match="this SGD is in the middle of another update"):
                call()
    finally:
        go_on.set()
        thread.join()
    assert opt.copy().cache == {"W": {"t": 1}}


# What there is one of


def meeting(function: Callable[..., Any], threads: int) -> Callable[..., Any]:
    """Return `function` so that its first so many callers are in it at the same time."""
    barrier = threading.Barrier(threads)
    met = threading.Event()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not met.is_set():
            barrier.wait(LONG)
            met.set()
        return function(*args, **kwargs)

    return wrapped


@pytest.mark.backends("numpy")
def test_one_library_whichever_type_was_met_first(backend, first_use, monkeypatch):
    """Two of them would be two libraries: a parameter and a gradient could not be of one."""
    compat = namespace.array_api_compat
    monkeypatch.setattr(compat, "array_namespace", meeting(compat.array_namespace, 2))
    arrays = [np.zeros(2), np.zeros(2).view(np.memmap)]
    found = at_once([lambda x=x: namespace.library_of(x) for x in arrays])
    assert found[0] is found[1]
    assert [namespace.library_of(x) for x in arrays] == found


def rule_of(opt: xpopt.OptimizerBase) -> Any:
    return opt.choose_rule(opt.hyperparameters)


@pytest.mark.backends("numpy")
def test_one_rule_of_a_class(backend, first_use, monkeypatch):
    monkeypatch.setattr(base, "Rule", meeting(base.Rule, 2))
    rules = at_once([lambda: rule_of(xpopt.Adam())] * 2)
    assert rules[0] is rules[1] is rule_of(xpopt.Adam())


@pytest.mark.backends("numpy")
def test_one_kernel_of_a_rule(backend, first_use, monkeypatch):
    monkeypatch.setattr(blocked.Kernel, "__init__", meeting(blocked.Kernel.__init__, 2))
    W = np.ones(3)

    def kernel() -> Any:
        opt = xpopt.Adam()
        with xpopt.engine("blocked"):
            opt.update(W, W, "W")
        rule = rule_of(opt)
        h = rule.scalars_at({"decay1": 0.5, "decay2": 0.5, "eps": 1.0}, 0.1, 1)
        return one_cache.made(blocked.Kernel, rule, h, Variant("blocked"))

    kernels = at_once([kernel] * 2)
    assert kernels[0] is kernels[1]


@needs_llvmlite
@pytest.mark.backends("numpy")
def test_one_compilation_for_all(backend, first_use, monkeypatch):
    built = []

    def note(source: str, *args: Any) -> Any:
        built.append(source)
        return original(source, *args)

    original = build.build
    monkeypatch.setattr(build, "build", note)
    with xpopt.engine("compiled"):
        at_once([lambda: xpopt.Adam().update(np.ones(3), np.ones(3), "W")] * THREADS)
    assert len(built) == 1


@pytest.mark.backends("numpy")
def test_one_warning_of_a_rule_that_cannot_be_traced(backend, first_use):
    barrier = threading.Barrier(2)

    def rule(xp, param, grad, s, h):
        if not isinstance(param, np.ndarray):
            barrier.wait(LONG)  # while it is traced
        return (param - h.lr * grad, s) if h.t else (param, s)

    own, W = of_rule(rule, NoSlots), np.ones(3)
    with xpopt.engine("blocked"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = at_once([lambda: own().update(W, W, "W").tolist()] * 2)
    assert results == [[0.9] * 3] * 2
    assert len(caught) == 1
    assert "cannot be traced" in str(caught[0].message)
    assert caught[0].filename == __file__
