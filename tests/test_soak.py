"""Hundreds of thousands of small steps, and thousands of other arrays and names, leave nothing behind.

Counted are the blocks of Python's allocator, the bytes that it and NumPy trace, resident memory, files and threads.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import os
import pickle
import re
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.engines import forget_what_was_made

import xpopt
from xpopt._engine.blocked import kernel as blocked
from xpopt._engine.compiled import kernel as compiled
from xpopt._engine.host import BLOCK
from xpopt.schedulers import SchedulerBase

pytestmark = pytest.mark.backends("numpy")

MANY, CHANGES = 40_000, 1_800

BLOCKS = 50  # of Python's allocator: one for each of the fewest steps are 56
TRACED = 16_384  # bytes; 8 for each of 2 500 steps are 20 000
TRACING = 2_500  # steps at most: they take several times as long
RESIDENT = 2**20  # bytes; 60 for each of the 20 000 steps of `test_many_steps` are 1 200 000


_clear_caches = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


def settle() -> None:
    """Drop what Python holds for a while.

    That is garbage, and up to 4 096 names by which attributes of types were looked up. C code makes them anew at each
    call; which of them stay goes by their addresses, and so by chance.
    """
    _clear_caches()
    gc.collect()


class Footprint(NamedTuple):
    """What a process holds; 0 where the system does not say."""

    blocks: int
    resident: int
    files: int
    threads: int
    tasks: int


def footprint() -> Footprint:
    settle()
    status, process = Path("/proc/self/status"), Path("/proc/self")
    resident = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
    files, tasks = (len(os.listdir(process / of)) if (process / of).exists() else 0 for of in ("fd", "task"))
    blocks = sys.getallocatedblocks()
    return Footprint(blocks, 1024 * int(resident[1]) if resident else 0, files, threading.active_count(), tasks)


def traced_by(step: Callable[[], object], times: int) -> int:
    """Return the bytes that are allocated in so many steps, and not freed in them."""
    tracemalloc.start()
    try:
        held = []
        for _ in range(2):  # at first, what takes the place of an object from before the tracing counts as new
            for _ in range(times):
                step()
            settle()
            held.append(tracemalloc.get_traced_memory()[0])
        return held[1] - held[0]
    finally:
        tracemalloc.stop()


def assert_no_growth(step: Callable[[], object], times: int, traced: int = TRACED) -> None:
    """Demand that steps leave nothing behind, once a tenth as many have been made."""
    for _ in range(times // 10):
        step()
    # first: a list that is long already grows by more than it needs, and then not at all for a while
    assert traced_by(step, min(times // 4, TRACING)) <= traced
    before = footprint()
    for _ in range(times):
        step()
    after = footprint()
    grown = Footprint(*(new - old for new, old in zip(after, before, strict=True)))
    assert grown.blocks <= BLOCKS, grown
    assert grown.resident <= RESIDENT, grown
    assert (grown.files, grown.threads, grown.tasks) == (0, 0, 0), grown


LEAKS: dict[str, Callable[[list[Any]], object]] = {
    "a reference": lambda left: left.append(None),
    "an object": lambda left: left.append(object()),
    "an array": lambda left: left.append(np.zeros(1)),
    "a file": lambda left: left.append(os.dup(0)),
    "a thread": lambda left: left.append(threading.Timer(60, print)) or left[-1].start(),
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_what_steps_leave_is_seen(leak):
    """Each of ten thousand, or, of files and threads, one in a thousand."""
    left: list[Any] = []
    rare = leak in (LEAKS["a file"], LEAKS["a thread"])
    numbers = itertools.count()

    def step() -> None:
        if not rare or next(numbers) % 1000 == 30:
            leak(left)

    try:
        with pytest.raises(AssertionError):
            assert_no_growth(step, 10_000)
    finally:
        for one in left:
            if isinstance(one, int):
                os.close(one)
            if isinstance(one, threading.Timer):
                one.cancel()
                one.join()


def test_names_that_python_holds_are_not_counted():
    before = footprint()
    for name in ["".join(("re", "al")) for _ in range(4096)]:
        getattr(int, name)
    del name
    assert footprint().blocks - before.blocks <= BLOCKS


# The same arrays again and again


def small_steps() -> Callable[[], None]:
    """Return a function that makes two steps: one by `update`, and one of another optimizer by `update_all`."""
    single, whole = xpopt.Adam(), xpopt.Adam()
    W, params = np.ones(3), {"W": np.ones((2, 3)), "b": np.ones(3)}
    grad, grads = np.ones_like(W), {name: np.ones_like(x) for name, x in params.items()}

    def steps() -> None:
        single.update(W, grad, "W", out=W)
        single.step()
        whole.update_all(params, grads, out=params)

    return steps


def test_many_steps(fused, backend):
    assert_no_growth(small_steps(), MANY // 2)


def test_steps_that_run_eagerly(eager):
    """Not as many: they take longest, and have the fewest places to keep anything."""
    assert_no_growth(small_steps(), MANY // 16)


# Other arrays, containers and names at each step

SHAPES = {"W": (40, 50), "b": (50,), "gain": ()}


def in_c_order(x: Any) -> Any:
    return np.array(x)


def in_fortran_order(x: Any) -> Any:
    return np.array(x, order="F")


def at_an_offset(x: Any) -> Any:
    buffer = np.zeros(x.size + 3, x.dtype)[3:]
    buffer[...] = x.reshape(-1)
    return buffer.reshape(x.shape)


def in_strides(x: Any) -> Any:
    wide = np.zeros((*x.shape, 2), x.dtype)[..., 0]
    wide[...] = x
    return wide


LAYOUTS = (in_c_order, in_fortran_order, at_an_offset, in_strides)


def changes(opt: Any) -> list[Callable[[], object]]:
    """Return all that a caller may do with other arrays, containers and names than before."""
    rng = np.random.default_rng(5)
    values = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    numbers = itertools.count()

    def new(layout: Any) -> dict[str, Any]:
        return {name: layout(x) for name, x in values.items()}

    def come_and_go() -> None:
        name = "layer", next(numbers)
        opt.update(in_c_order(values["W"]), values["W"], name, 0.5)
        del opt.cache[name]

    def another_shape() -> None:
        for shape in ((30, 20), (7,)):
            opt.update(np.ones(shape), np.ones(shape), "shaped", 0.5)
            opt.cache.pop("shaped")

    def part() -> None:
        grads = {name: None if name == "b" else x for name, x in values.items()}
        opt.update_all(new(in_c_order), grads, 0.5)

    def fail() -> None:
        with contextlib.suppress(ValueError):
            opt.update_all(new(in_c_order), {**values, "b": np.ones(3)}, 0.5)

    def restore() -> None:
        opt.set_params(cache_dict=opt.cache)

    def start_over() -> None:
        opt.cache = {}

    def clip() -> None:
        opt.set_params({"clip_norm": None if opt.hyperparameters["clip_norm"] else 0.5})

    def in_layout(layout: Any) -> None:
        opt.update_all(new(layout), new(layout), 0.5)
        params = new(layout)
        for _ in range(2):
            opt.update_all(params, new(layout), 0.5, out=params)
        opt.update_all(new(layout), new(layout), 0.5, out=new(layout))
        opt.update(layout(values["W"]), layout(values["W"]), "W", 0.5)

    def in_a_list() -> None:
        opt.update_all(list(new(in_c_order).values()), list(values.values()), 0.5)

    def nested() -> None:
        opt.update_all({"deep": [new(in_c_order)]}, {"deep": [new(in_c_order)]}, 0.5)

    def unpickled() -> None:
        pickle.loads(pickle.dumps(opt)).update_all(new(in_c_order), values, 0.5)

    def copied() -> None:
        opt.copy().update_all(new(in_c_order), values, 0.5)

    layouts = [functools.partial(in_layout, layout) for layout in LAYOUTS]
    others = [in_a_list, nested, come_and_go, another_shape, part, fail, restore, clip, opt.step, unpickled, copied]
    return [*layouts, *others, start_over]


def all_changes(opt: Any) -> tuple[Callable[[], None], int]:
    """Return a function that makes all of them, and how often it makes as many as there are to be."""
    every = changes(opt)

    def make() -> None:
        for change in every:
            change()

    return make, CHANGES // len(every)


told_twice = pytest.mark.filterwarnings(r"ignore:step\(\) was called between two calls of update_all")


@told_twice
def test_arrays_and_names_that_change(fused, backend):
    assert_no_growth(*all_changes(xpopt.Adam(lr_scheduler="KingScheduler(patience=2)")))


@told_twice
def test_arrays_and_names_that_change_eagerly(eager):
    make, times = all_changes(xpopt.Adam(lr_scheduler="KingScheduler(patience=2)"))
    assert_no_growth(make, times // 2)


def test_names_that_go_without_a_step(fused, backend):
    """Each pass ends when the name that stays comes round again; nobody calls `step`."""
    opt, W, names = xpopt.Adam(), np.ones(1000), itertools.count()

    def come_and_go() -> None:
        name = "layer", next(names)
        opt.update(W, W, name)
        del opt.cache[name]
        opt.update(W, W, "stays")

    assert_no_growth(come_and_go, CHANGES // 2)


def test_a_new_shape_at_each_step(fused, backend):
    """What the engines keep by shape has an end: for two thousand shapes it is what it is for one thousand."""
    sizes = itertools.count(1500)

    def step() -> None:
        W = np.ones(next(sizes))
        xpopt.Adam().update(W, W, "W")

    assert traced_by(step, 1000) < {"blocked": 4 * 2**20, "compiled": 65_536}[fused]


def test_optimizers_that_come_and_go(fused, backend):
    W = {"W": np.ones(1000), "b": np.ones(10)}

    def train() -> None:
        opt = xpopt.Adam()
        for _ in range(3):
            opt.update_all(W, W)

    assert_no_growth(train, CHANGES // 4)


def test_threads_that_come_and_go(fused, backend):
    """What an engine keeps for each thread goes with it; helpers stay, as many as there were."""
    params, grads = ({"W": np.ones(1_200_007, np.float32), "b": np.ones(1000, np.float32)} for _ in range(2))
    opt = xpopt.SGD()

    def train() -> None:
        with xpopt.engine(fused), xpopt.num_threads(3):
            opt.update_all(params, grads, out=params)

    def in_a_thread() -> None:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        while Path(f"/proc/self/task/{thread.native_id}").exists():  # the system lets go of it a moment later
            time.sleep(0)

    assert_no_growth(in_a_thread, 300)


# Arrays of other libraries


@pytest.mark.backends("numpy-readonly", "array-api-strict", "torch", "jax")
def test_a_thousand_steps(backend):
    """Of Dask's arrays each holds the graph of all steps before it, until the caller computes it.

    Tensors are updated on one engine from the first step on, and not compiled somewhere on the way.
    """
    opt, whole = xpopt.Adam(clip_norm=1.0), xpopt.Adam()
    W, grad = backend.array([1.0, 2.0, 3.0]), backend.array([1.0, 1.0, 1.0])
    model = {"W": backend.array(np.ones((2, 3))), "b": backend.array(1.0)}

    def steps() -> None:
        nonlocal W, model
        W = opt.update(W, grad, "W")
        opt.step()
        model = whole.update_all(model, model)

    with xpopt.engine("blocked" if backend.library == "torch" else "auto"):
        assert_no_growth(steps, 1_000, 2 * TRACED)


# Classes that come and go


def own_optimizer() -> type[xpopt.OptimizerBase]:
    """A class that its own rule refers to, so that only the collector can free it."""

    class Own(xpopt.OptimizerBase):
        class slots(NamedTuple):  # noqa: N801 - as it is called there
            first: Any
            second: Any

        @staticmethod
        def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
            assert Own.rule is not None
            return param - h.lr * grad, Own.slots(s.first + grad, xp.sqrt(s.second) + h.t)

    return Own


def untraceable_optimizer() -> type[xpopt.OptimizerBase]:
    """One that runs eagerly, after a warning."""

    class Branching(xpopt.OptimizerBase):
        @staticmethod
        def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
            return (param - h.lr * grad, s) if h.t < 100 and Branching else (param, s)

    return Branching


def used(cls: type[xpopt.OptimizerBase], dtype: str, **options: Any) -> list[weakref.ref[Any]]:
    """Do with a class what can be done; return references to it and to what was made of it."""
    opt = cls(lr=0.1, **options)
    sizes = {"small": 3, "other": 5, "large": 70_000}
    params = {name: np.ones(size, dtype) for name, size in sizes.items()}
    grads = {name: np.ones_like(x) for name, x in params.items()}
    for _ in range(3):
        opt.update_all(params, grads, out=params)
        opt.update(params["small"], grads["small"], "small")
    opt.explain(params)
    opt.copy().state_dict()
    xpopt.make_optimizer(str(cls(lr=0.1)))
    rules = [opt._parts.settings.rule, cls._rule_once, *opt._parts.settings.rule.low.values()]
    made = [one for rule in rules for one in rule.made.values()]
    kernels = [one for one in made if isinstance(one, blocked.Kernel | compiled.Kernel)]
    of_kernels = [one.call for one in kernels if isinstance(one, compiled.Kernel)]
    for one in kernels:
        for working in vars(one._local).values() if isinstance(one, blocked.Kernel) else ():
            of_kernels += [*working.arrays, *working.blocks]
    assert kernels or cls.__name__ == "Branching"
    return [
        weakref.ref(one)
        for one in [cls, cls.slots, *rules, *kernels, *of_kernels]
        if one is not xpopt.OptimizerBase.slots
    ]


@pytest.mark.filterwarnings("ignore:.*runs eagerly")
@pytest.mark.parametrize("make", [own_optimizer, untraceable_optimizer])
@pytest.mark.parametrize(
    ("dtype", "options"),
    [("float32", {}), ("float64", {"clip_norm": 0.5}), ("float16", {"master": True}), ("float16", {})],
    ids=["float32", "clipped", "master", "float16"],
)
def test_all_that_was_made_of_a_class_goes_with_it(fused: str, make: Any, dtype: str, options: dict[str, Any]) -> None:
    references = used(make(), dtype, **options)
    gc.collect()
    gc.collect()  # what the finalizers of the first left
    left = [reference() for reference in references]
    assert left == [None] * len(references)


def schedule_and_array() -> list[weakref.ref[Any]]:
    """Use a schedule of one's own, and an array of a class that is refused; return references to the classes."""

    class Own(SchedulerBase):
        ranges = {"lr": xpopt.Range(low=0)}

        def __init__(self, lr: float = 0.5) -> None:
            super().__init__(lr=lr)

        def learning_rate(self, step: Any, cur_loss: Any = None) -> float:
            return self.lr if Own else 0.0

    class Array(np.ndarray):
        pass

    opt, value = xpopt.SGD(lr_scheduler=Own()), np.ones(2).view(Array)
    opt.update(np.ones(2), np.ones(2), "W")
    str(xpopt.make_optimizer(str(opt)))
    with pytest.raises(TypeError, match="Array"):
        opt.update(value, value, "V")
    return [weakref.ref(Own), weakref.ref(Array)]


def test_a_schedule_and_an_array_class_go_too() -> None:
    references = schedule_and_array()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_names_that_come_and_go_without_a_step_are_forgotten() -> None:
    """Each is new, so that the pass never ends."""
    opt = xpopt.SGD(lr=0.5, momentum=0.9)
    W = np.ones(2)
    for replaced in (False, True):
        for i in range(1000):
            opt.update(W, W, (replaced, i))
            if i >= 3 and not replaced:
                del opt.cache[replaced, i - 3]
            elif i % 3 == 0 and replaced:
                opt.cache = {}
            assert len(opt._parts.clock._names) <= len(opt.cache) + 4
    header = opt.state_dict()["header"]
    assert len(header["pass"]["names"]) <= 4


def test_the_arrays_to_work_in_are_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For large tensors, for small ones that share a block, and for 16 bits."""
    made = forget_what_was_made(monkeypatch)
    with xpopt.engine("blocked"):
        for dtype in ("float32", "float16"):
            opt = xpopt.Adam()
            params = [np.ones(size, dtype) for size in (70_000, 10, 20, 5_000)]
            grads = [np.ones_like(x) for x in params]
            for _ in range(3):
                opt.update_all(params, grads, out=params)
    (kernel,) = [one for of in made.values() for one in of.values() if isinstance(one, blocked.Kernel)]
    shapes = [shape for shape, *_ in vars(kernel._local)]  # of one dtype, in which both are computed
    assert (BLOCK,) in shapes
    assert len(set(shapes)) == len(shapes)
