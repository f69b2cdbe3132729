"""The CUDA engine without a device: CuPy's arrays lie in the host's memory, and kernels run on the processor."""

from __future__ import annotations

import functools
import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.bits import dtype_of, same_bits
from _kit.engines import FEW, MAKE, Two, forget_what_was_made, of_rule
from _kit.table import SLOTTED

import xpopt
from xpopt._arrays.library import LOW
from xpopt._arrays.namespace import library_of
from xpopt._engine import choose
from xpopt._engine.cuda import device
from xpopt._engine.cuda import finite as cuda_finite
from xpopt._engine.cuda.finite import all_within
from xpopt._engine.eager.group import EagerGroup
from xpopt._engine.group import Launched
from xpopt._graph.trace import trace
from xpopt._print.cuda import OPTIONS, print_cuda, print_finite
from xpopt._state.cache import State
from xpopt._state.skipped import Skipped
from xpopt._step.check import check
from xpopt._transforms.master import with_masters

cupy = pytest.importorskip("cupy", reason="CuPy, whose arrays these are, is missing")
cuda_on_cpu = pytest.importorskip("cuda_on_cpu")
fake_cupy = pytest.importorskip("fake_cupy")
on_device, values_of = fake_cupy.on_device, fake_cupy.values_of

pytestmark = [
    pytest.mark.backends("cupy"),
    pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="g++, which compiles for the processor, is missing"),
]

DTYPES = ("float16", "bfloat16", "float32", "float64")
SHAPES = {"number": (), "none": (0,), "one": (1,), "matrix": (7, 5), "odd": (4097,), "large": (3, 5_001)}

KINDS = {name: MAKE[name] for name in (*FEW, "NAdam", "FTRL", "ScheduleFreeSGD", "ScheduleFreeAdamW")}
"""Rules that differ in kind, and those that have slots of one number, whose source is not launched by itself."""
optimizers = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@functools.cache
def build_all() -> None:
    """Compile what the tests launch, a unit for each dtype; what a test has of its own is compiled there."""
    rules = [(opt := make()).choose_rule(opt.hyperparameters) for make in KINDS.values()]
    for dtype in DTYPES:
        ways = list(itertools.product((False, True), repeat=2))  # clipped or not, guarded or not
        texts = [print_finite(dtype)]
        texts += [print_cuda(trace(rule, clipped=c), dtype, guarded=g) for rule in rules for c, g in ways]
        if dtype in LOW:
            copied = [with_masters(rule).low[dtype] for rule in rules]
            texts += [print_cuda(trace(rule, clipped=c), dtype, guarded=g) for rule in copied for c, g in ways]
            some = [(False, False), (True, False), (False, True)]
            texts += [
                print_cuda(trace(rule, clipped=c), dtype, guarded=g, drawn=True) for rule in rules for c, g in some
            ]
        cuda_on_cpu.build([(text, (*OPTIONS, f"-DTABLE_BYTES={device._SMALL}")) for text in texts])


@pytest.fixture
def runtime(monkeypatch):
    """A CuPy that needs no device, in the place of the one that does; devices and kernels start anew."""
    build_all()
    fake = fake_cupy.FakeCuPy()
    monkeypatch.setattr(device, "_cupy", lambda: fake)
    forget_what_was_made(monkeypatch)
    monkeypatch.setattr(choose, "_warned", {})
    device.device.cache_clear()
    cuda_finite._source.cache_clear()
    yield fake
    device.device.cache_clear()
    fake_cupy.KEPT_ALIVE.clear()


@pytest.fixture
def eagerly(monkeypatch):
    """The library of each update that came to the eager engine, which on CuPy would need a device."""
    met: list[Any] = []

    def launch(self: Any, bound: Any, numbers: Any) -> Launched:
        met.extend(library.name for _, library, _ in self._known)
        slots = [self.rule.make_slots([x] * len(self.rule.fields)) for x in bound.params]
        return Launched(bound.params, slots, lambda: None)

    monkeypatch.setattr(EagerGroup, "launch", launch)
    return met


def draw(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype_of(dtype))


def powers_of_two(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """Gradients whose squares every sum adds up exactly, scaled or not: so their norm has one value."""
    return np.asarray(np.random.default_rng(seed).choice([-8.0, -4.0, -1.0, 0.5, 2.0], shape), dtype_of(dtype))


def on_host(x: Any) -> Any:
    """Return arrays, entries or containers of them over the memory in which a kernel on the processor has them."""
    if isinstance(x, dict):
        return {name: on_host(value) for name, value in x.items()}
    return values_of(x) if isinstance(x, cupy.ndarray) else x


class Model:
    """A model on the device and the same on the host, which NumPy updates eagerly."""

    def __init__(self, opt: Any, arrays: dict[Any, Any], number: Any = lambda name: 0) -> None:
        self.opt, self.reference = opt, opt.copy()
        self.number = number
        self.want = dict(arrays)
        self.params = {name: on_device(x.copy(order="K"), number(name)) for name, x in arrays.items()}

    def step(self, grads: dict[Any, Any], *, in_place: bool = False) -> None:
        on = {name: None if x is None else on_device(x, self.number(name)) for name, x in grads.items()}
        out = self.params if in_place else None
        self.params = self.opt.update_all(self.params, on, out=out)
        with xpopt.engine("eager"):
            self.want = self.reference.update_all(self.want, grads)

    def same(self) -> bool:
        return same_bits(on_host(self.params), self.want) and same_bits(on_host(self.opt.cache), self.reference.cache)


def complex_numbers(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """Parts of a few powers of two, so that their norm has one value."""
    pairs = powers_of_two((*shape, 2), PARTS[dtype], seed)
    return pairs.view(dtype)[..., 0]


PARTS = {"complex64": "float32", "complex128": "float64"}


@pytest.mark.parametrize("shape", [(), (0,), (7, 5)], ids=str)
@pytest.mark.parametrize("dtype", PARTS)
def test_parts_of_complex_arrays_are_views(dtype, shape):
    """Of contiguous arrays, and back: the same memory, for which no device is asked."""
    values = complex_numbers(shape, dtype, 3)
    z = on_device(values)
    library = library_of(z)
    pairs = library.reals(z)
    assert (pairs.dtype, pairs.shape, pairs.data.ptr) == (PARTS[dtype], (*shape, 2), z.data.ptr)
    assert same_bits(values_of(pairs), values[..., np.newaxis].view(PARTS[dtype]))
    whole = library.joined(pairs)
    assert (whole.dtype, whole.shape, whole.data.ptr) == (dtype, shape, z.data.ptr)


@pytest.mark.parametrize(("name", "dtype"), [("Adam", "complex64"), ("NAdam", "complex64"), ("FTRL", "complex128")])
def test_complex_numbers_have_the_bits_of_numpy(runtime, name, dtype):
    """In the kernels of the real dtype, where the arrays lie: in C and in Fortran order, and of shape ()."""
    shapes = {"number": (), "none": (0,), "odd": (4097,), "matrix": (7, 5)}
    start = {key: complex_numbers(of, dtype, k) for k, (key, of) in enumerate(shapes.items())}
    model = Model(KINDS[name](clip_norm=2.0), {**start, "turned": np.asfortranarray(start["matrix"])})
    for k in range(3):
        grads = {key: complex_numbers(of, dtype, 10 + k) for key, of in shapes.items()}
        model.step({**grads, "turned": np.asfortranarray(grads["matrix"])}, in_place=k == 2)
        assert model.same()
    assert runtime.launches


@pytest.mark.parametrize("clip_norm", [None, 2.0])
@every_dtype
@optimizers
def test_update_has_the_bits_of_numpy(runtime, make, dtype, clip_norm):
    ours, theirs = make(clip_norm=clip_norm), make(clip_norm=clip_norm)
    grads = draw if clip_norm is None else powers_of_two
    for k, shape in enumerate(SHAPES.values()):
        want = draw(shape, dtype, k)
        x, y = on_device(want.copy()), on_device(want.copy())
        for step in range(3):
            g = grads(shape, dtype, 10 + step)
            with xpopt.engine("eager"):
                want = theirs.update(want, g, k)
            x = ours.update(x, on_device(g), k)
            assert ours.update(y, on_device(g), ("in place", k), out=y) is y
            assert same_bits(values_of(x), want)
            assert same_bits(values_of(y), want)
    assert {name for name, *_ in runtime.launches} >= {"update", *([] if clip_norm is None else ["find_factors"])}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 2.0])
@optimizers
def test_update_all_has_the_bits_of_numpy(runtime, make, clip_norm, in_place):
    grads = draw if clip_norm is None else powers_of_two
    names = {(dtype, shape): (dtype, SHAPES[shape]) for dtype in DTYPES for shape in SHAPES}
    model = Model(make(clip_norm=clip_norm), {name: draw(shape, dtype, 1) for name, (dtype, shape) in names.items()})
    for step in range(4):
        model.step({name: grads(shape, dtype, step) for name, (dtype, shape) in names.items()}, in_place=in_place)
        if step in (0, 3):
            assert model.same()


def test_each_tensor_has_its_own_bound(runtime):
    """In one launch, which others follow that clip nothing."""
    opt, bounds = xpopt.Adam(lr=0.1), [0.5, 3.0, None, 1e-30, 0.5]
    settings, rule = opt._parts.settings.of_rule, opt._parts.settings.rule
    grads = [powers_of_two((k * 37 + 5,), "float32", k) for k in range(len(bounds))]
    tensors = []
    for k, (grad, bound) in enumerate(zip(grads, bounds, strict=True)):
        param = on_device(draw(grad.shape, "float32", k))
        tensor = check(State(), rule, param, on_device(grad), k, lambda spec, name: None)
        tensor.h = rule.scalars_at(settings | {"clip_norm": bound}, 0.1, 1)
        tensors.append(tensor)
    launched, _ = choose.launch(tensors)
    want = [values_of(tensor.param).copy() for tensor in tensors]
    launched.finish()
    assert [name for name, *_ in runtime.launches].count("update") == 2
    for x, grad, bound, new in zip(want, grads, bounds, launched.results, strict=True):
        with xpopt.engine("eager"):
            assert same_bits(values_of(new), xpopt.Adam(lr=0.1, clip_norm=bound).update(x, grad, "W"))


class Beside(NamedTuple):
    fast: Any = xpopt.slot(start=0.1)
    start: Any = xpopt.slot(start="param")


@every_dtype
def test_slots_that_start_elsewhere_have_the_bits_of_numpy(runtime, dtype):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        fast = 0.5 * s.fast + grad
        return param - h.lr * (fast + param - s.start), Beside(fast, s.start)

    model = Model(of_rule(rule, Beside)(), {name: draw(shape, dtype, 1) for name, shape in SHAPES.items()})
    for step in range(3):
        model.step({name: draw(shape, dtype, 10 + step) for name, shape in SHAPES.items()})
    assert model.same()
    assert {name for name, *_ in runtime.launches} == {"update"}


@every_dtype
def test_transforms_have_the_bits_of_numpy(runtime, dtype):
    decay = xpopt.WeightDecay(0.125, towards="start", cautious=True)
    around = {"l2": 0.0625, "clip_value": 0.75, "cautious": True, "maximize": True, "bounds": (-0.1, 0.3)}
    memory = {"average": xpopt.EMA(0.5), "lookahead": xpopt.Lookahead(every=2), "accumulate": 2, "loss_scale": 2.0}
    opt = xpopt.Adam(lr=0.25, weight_decay=decay, **around, **memory)
    model = Model(opt, {name: draw(shape, dtype, 1) for name, shape in SHAPES.items()})
    for step in range(4):
        model.step({name: draw(shape, dtype, 10 + step) for name, shape in SHAPES.items()})
    assert model.same()
    assert {name for name, *_ in runtime.launches} == {"update"}


@every_dtype
def test_bounds_and_rates_of_each_element_have_the_bits_of_numpy(runtime, dtype):
    rng = np.random.default_rng(4)
    groups = {
        name: {"bounds": (-0.1, rng.uniform(size=shape)), "lr_scale": rng.uniform(size=shape)}
        for name, shape in SHAPES.items()
        if shape
    }
    model = Model(xpopt.Adam(lr=0.25, groups=groups), {name: draw(SHAPES[name], dtype, 1) for name in groups})
    for step in range(3):
        grads = {name: draw(SHAPES[name], dtype, 10 + step) for name in groups}
        model.step(grads, in_place=step == 1)
    assert model.same()
    assert {name for name, *_ in runtime.launches} == {"update"}


class Kept(NamedTuple):
    fast: Any = xpopt.slot(start=0.1, dtype="float16")
    slow: Any = xpopt.slot(dtype="bfloat16")
    size: Any = xpopt.slot(dtype="float32")


def kept(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    fast, slow = 0.7 * s.fast + 0.3 * grad, 0.9 * s.slow + 0.1 * grad * grad
    return param - h.lr * fast / (xp.sqrt(slow) + 0.1) + s.size, Kept(fast, slow, s.size + abs(grad))


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (of_rule(kept, Kept), "float32"),
        (of_rule(kept, Kept), "bfloat16"),
        (lambda: xpopt.Adam(slots_dtype="float32"), "float64"),
        (lambda: xpopt.Adam(slots_dtype="bfloat16", master=True), "float16"),
    ],
    ids=["three", "and narrow", "wide", "master"],
)
def test_narrower_slots_have_the_bits_of_numpy(runtime, make, dtype):
    model = Model(make(), {name: draw(shape, dtype, 1) for name, shape in SHAPES.items()})
    for step in range(3):
        model.step({name: draw(shape, dtype, 10 + step) for name, shape in SHAPES.items()}, in_place=step == 1)
    assert model.same()
    assert {name for name, *_ in runtime.launches} == {"update"}


class Mixed(NamedTuple):
    mean: Any
    sign: Any = xpopt.slot(start=-1, shape=xpopt.one)
    count: Any = xpopt.slot(shape=xpopt.one)
    last: Any = xpopt.slot(start=5, shape=xpopt.one)


def mixed(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Mix numbers of the tensor, their truth values, arrays, masks and numbers of the step."""
    count = s.count + 1
    early = (count < 3) & (s.sign < 0)
    sign = xp.where(early, s.sign, -s.sign)
    size = xp.clip(xp.sqrt(count) * h.lr, 0.0, s.last)
    grad = xp.where(early, grad, sign * grad)
    mean = xp.where((grad > 0) | early, s.mean + size * grad, xp.maximum(s.mean, count) - s.last)
    return param - xp.abs(sign) * mean, Mixed(mean, sign, count, s.last)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        *((row.make, dtype) for row, dtype in zip(SLOTTED, ("float32", "float64", "bfloat16"), strict=True)),
        (of_rule(mixed, Mixed), "float32"),
        (lambda: of_rule(mixed, Mixed)(clip_norm=2.0), "float32"),
        (lambda: SLOTTED[1].make(master=True), "bfloat16"),
        (lambda: SLOTTED[2].make(rounding="stochastic"), "float16"),
        (lambda: xpopt.FISTA(lr=0.25, bounds=(-0.3, 0.7)), "float16"),
        (lambda: xpopt.FISTA(lr=0.25, prox=xpopt.prox.l1(0.1)), "float32"),
    ],
    ids=["FTRL", "NAdam", "ScheduleFree", "mixed", "clipped", "master", "stochastic", "bounded", "shrunk"],
)
def test_slots_of_one_number_have_the_bits_of_numpy(runtime, make, dtype):
    """One parameter has no elements and joins later; others are updated alone in between."""
    model = Model(make(), {name: draw(shape, dtype, 1) for name, shape in SHAPES.items()})
    late = model.want.pop("none"), model.params.pop("none")
    for step in range(4):
        if step == 1:
            model.want["none"], model.params["none"] = late
        model.step(
            {name: powers_of_two(x.shape, dtype, 10 + step) for name, x in model.want.items()}, in_place=step == 2
        )
    assert model.same()
    x, g = draw((7, 5), dtype, 3), powers_of_two((7, 5), dtype, 4)
    new = model.opt.update(on_device(x.copy()), on_device(g), "none at all")
    with xpopt.engine("eager"):
        want = model.reference.update(x, g, "none at all")
    assert same_bits(values_of(new), want)
    assert model.same()


@pytest.mark.parametrize("in_place", [False, True])
def test_groups_have_the_bits_of_numpy(runtime, in_place):
    """Other numbers are rows of one launch; a decay, a bound and another algorithm make launches of their own."""
    groups = {
        "0": {"lr": 0.5, "decay1": 0.5},
        "1": "freeze",
        "2": {"clip_norm": 2.0},
        "3": {"clip_norm": 0.5},
        "4": xpopt.SGD(lr=0.25, momentum=0.5),
    }
    model = Model(xpopt.Adam(lr=0.1, groups=groups), many(8))
    for step in range(3):
        model.step({k: powers_of_two(x.shape, "float32", step) for k, x in many(8).items()}, in_place=in_place)
    assert [name for name, *_ in runtime.launches].count("update") == 3 * 3
    assert model.same()
    assert 1 not in model.opt.cache


def many(count: int, dtype: str = "float32") -> dict[Any, tuple[int, ...]]:
    return {k: draw((k * 37 % 300,), dtype, k) for k in range(count)}


@pytest.mark.parametrize("in_place", [False, True])
@optimizers
def test_master_copies_have_the_bits_of_numpy(runtime, make, in_place):
    """A launch for each dtype; parameters that the caller sets; and copies that go."""
    model = Model(
        make(master=True), {(dtype, name): draw(shape, dtype, 1) for dtype in DTYPES for name, shape in SHAPES.items()}
    )
    for step in range(8):
        if step == 3:
            model.want = {name: draw(x.shape, name[0], 2) for name, x in model.want.items()}
            model.params = {name: on_device(x.copy()) for name, x in model.want.items()}
        if step == 6:
            for opt in (model.opt, model.reference):
                opt.set_params({"master": False})
        before = len(runtime.launches)
        model.step({name: draw(x.shape, name[0], 10 + step) for name, x in model.want.items()}, in_place=in_place)
        of_dtype = 2 if model.opt._parts.settings.rule.ones else 1  # the first finds the numbers of each tensor
        assert len(runtime.launches) == before + of_dtype * len(DTYPES)
        assert same_bits(on_host(model.params), model.want)
        if step in (5, 7):
            assert model.same()
            copied = {
                name[0] for name, entry in model.opt.cache.items() if isinstance(entry, dict) and "master" in entry
            }
            assert copied == ({"float16", "bfloat16"} if step == 5 else set())


@pytest.mark.parametrize(
    ("count", "driver", "travels"),
    [(3, 13000, True), (60, 13000, True), (400, 13000, True), (400, 12000, False), (700, 13000, False)],
)
def test_one_launch_updates_all(runtime, count, driver, travels):
    """By value in a launch of 4 or 32 kilobytes, and through a buffer where that is too little."""
    runtime.driver = driver
    model = Model(xpopt.Adam(), many(count))
    for step in range(3):
        before = len(runtime.launches)
        model.step({name: draw(x.shape, "float32", step) for name, x in model.want.items()})
        assert len(runtime.launches) == before + 1
    assert model.same()
    assert (runtime.buffers == 0) == travels


@pytest.mark.parametrize("count", [20, 700])
def test_each_tensor_has_its_own_count(runtime, count):
    """Parameters that join late, or have no gradient now and then, share the launch with the others."""
    arrays = many(count)
    model = Model(xpopt.Adam(), arrays)
    for step in range(6):
        grads = {
            k: draw(x.shape, "float32", step) if (k + step) % 4 and k <= 100 * step else None for k, x in arrays.items()
        }
        before = len(runtime.launches)
        model.step(grads)
        assert len(runtime.launches) == before + any(g is not None and g.size for g in grads.values())
    assert model.same()


def test_a_table_that_its_numbers_make_too_large_for_a_small_launch(runtime):
    """62 tensors and two rows of numbers fill it; here are three."""
    model = Model(xpopt.Adam(), {k: draw((5,), "float32", k) for k in range(62)})
    for step in range(4):
        model.step({k: draw((5,), "float32", step) if k % 3 <= step else None for k in model.want})
    assert model.same()


def test_a_launch_for_each_dtype_and_device(runtime):
    arrays = {(k, dtype): draw((9,), dtype, k) for k in range(6) for dtype in ("float32", "float64")}
    model = Model(xpopt.Adam(), arrays, lambda name: name[0] % 2)
    for step in range(3):
        model.step({name: draw((9,), name[1], step) for name in arrays})
    assert model.same()
    assert [number for _, number, *_ in runtime.launches] == [0, 0, 1, 1] * 3
    assert all(x.data.device_id == name[0] % 2 for name, x in model.params.items())


def test_a_bound_on_a_gradient_that_is_not_read(runtime):
    def rule(xp, param, grad, s, h):
        return param - h.lr * param, Two(s.fast + param, s.slow)

    model = Model(of_rule(rule)(clip_norm=1.0), {"W": draw((7,), "float32", 0)})
    for _ in range(2):
        model.step({"W": np.full(7, np.nan, np.float32)})
    assert model.same()


def test_what_is_written_in_place_is_the_optimizers_own(runtime):
    opt, param, grad = xpopt.AdaGrad(), on_device(np.ones(5)), on_device(np.ones(5))
    opt.update(param, grad, "W")
    seen = opt.cache["W"]
    opt.update(param, grad, "W")
    assert values_of(seen).tolist() == [1.0] * 5
    assert values_of(opt.cache["W"]).tolist() == [2.0] * 5
    assert values_of(param).tolist() == [1.0] * 5


def test_a_step_in_place_allocates_nothing_of_the_models_size(runtime):
    arrays = {k: draw((100_000,), "float32", k) for k in range(4)}
    for clip_norm, most in ((None, 0), (1.0, 100_000)):
        model = Model(xpopt.Adam(clip_norm=clip_norm), arrays)
        for step in range(3):
            before = runtime.allocated
            model.step({k: powers_of_two(x.shape, "float32", step) for k, x in arrays.items()}, in_place=True)
        assert runtime.allocated - before <= most
        assert model.same()


# Streams


def test_the_host_waits_for_nothing(runtime):
    """A device that is far behind gets all its tables, and every step its own numbers."""
    runtime.driver = 12000
    arrays = many(100)
    model = Model(xpopt.Adam(), arrays)
    runtime.deferred = True
    for step in range(8):
        model.step({name: draw(x.shape, "float32", step) for name, x in arrays.items()})
    assert runtime.buffers == 8
    runtime.run("null")
    assert model.same()
    for step in range(8):
        model.step({name: draw(x.shape, "float32", step) for name, x in arrays.items()})
        runtime.run("null")
    assert runtime.buffers == 8
    assert model.same()


def test_streams_share_no_buffer_that_is_in_use(runtime):
    """Two models on two streams, the second far ahead of the first; each stream runs when it likes."""
    runtime.driver = 12000
    models = {stream: Model(xpopt.Adam(), many(100)) for stream in ("one", "two")}
    runtime.deferred = True

    def step(stream, seed):
        with runtime.using(stream):
            model = models[stream]
            model.step({name: draw(x.shape, "float32", seed) for name, x in model.want.items()})

    for seed in range(3):
        step("one", seed)
        step("two", seed)
        runtime.run("two")
    runtime.run("one", 4)
    step("two", 3)
    runtime.run("two")
    runtime.run("one")
    assert all(model.same() for model in models.values())
    assert {stream for *_, stream, _ in runtime.launches} == {"one", "two"}


def test_a_smaller_table_takes_a_buffer_and_a_larger_one_makes_its_own(runtime):
    runtime.driver = 12000
    for count, buffers in ((400, 1), (100, 1), (2000, 2), (400, 2)):
        model = Model(xpopt.SGD(), many(count))
        model.step({name: draw(x.shape, "float32", 0) for name, x in model.want.items()})
        assert model.same()
        assert runtime.buffers == buffers


# Steps that are skipped on the device


def skipped(model: Model) -> None:
    """Do to the reference what a step skipped on the device does: it counts, and nothing else changes."""
    opt = model.reference
    if not opt.cache:  # state that begins with no gradient
        with xpopt.engine("eager"):
            lr = opt.lr
            opt.set_params({"nonfinite": "propagate", "lr": 0.0})  # nor does anything decay
            opt.update_all(model.want, {name: np.zeros_like(x) for name, x in model.want.items()})
            opt.set_params({"lr": lr})
        rule = opt._parts.settings.rule
        for name, entry in opt.cache.items():  # which that update may have moved, or started at a rate of 0
            for field, spec in zip(rule.fields, rule.specs, strict=True):
                if isinstance(entry, dict) and field in entry:
                    starts = {**opt.hyperparameters, "param": model.want[name]}
                    entry[field][...] = starts.get(spec.start, spec.start)
        return
    for entry in opt.cache.values():
        if isinstance(entry, dict):
            entry["t"] += 1


@pytest.fixture
def decisions(monkeypatch):
    """What the device decided, in place of the count, which CuPy's own kernels keep."""
    made: list[Any] = []

    def unless(self: Skipped, proceed: Any) -> Skipped:
        made.append(proceed)
        return self

    monkeypatch.setattr(Skipped, "unless", unless)
    return made


def test_a_skipped_step_leaves_slots_of_one_number(runtime, decisions):
    model = Model(
        of_rule(mixed, Mixed)(nonfinite="skip"), {k: draw(shape, "float32", 1) for k, shape in SHAPES.items()}
    )
    for step in range(4):
        grads = {name: powers_of_two(x.shape, "float32", step) for name, x in model.want.items()}
        if step == 2:
            grads["one"][:] = np.nan
        before, want = model.reference.copy(), model.want
        model.step(grads)
        assert bool(values_of(decisions[-1])) == (step != 2)
        if step == 2:
            model.reference, model.want = before, want
            skipped(model)
        assert model.same()


PAIRWISE = [({}, None, False), ({}, 2.0, True), ({"master": True}, None, True), ({"master": True}, 2.0, False)]
"""Each value of each of three options with each of the others."""


@pytest.mark.parametrize(("kwargs", "clip_norm", "in_place"), PAIRWISE, ids=["plain", "clipped", "master", "both"])
@optimizers
def test_a_step_that_is_skipped_changes_nothing_but_counts(runtime, decisions, make, kwargs, clip_norm, in_place):
    """Whichever element of whichever tensor is not finite; also the first step of all, and the first that is kept."""
    names = {(dtype, shape): (dtype, SHAPES[shape]) for dtype in DTYPES for shape in SHAPES}
    arrays = {name: draw(shape, dtype, 1) for name, (dtype, shape) in names.items()}
    model = Model(make(clip_norm=clip_norm, nonfinite="skip", **kwargs), arrays)
    broken = {0: (("float32", "large"), -1, np.nan), 2: (("bfloat16", "number"), 0, -np.inf)}
    broken[3] = ("float64", "odd"), 17, np.inf
    for step in range(6):
        grads = {name: powers_of_two(shape, dtype, step) for name, (dtype, shape) in names.items()}
        if step in broken:
            name, place, value = broken[step]
            grads[name].reshape(-1)[place] = value
        before, want = model.reference.copy(), model.want
        model.step(grads, in_place=in_place)
        assert bool(values_of(decisions[-1])) == (step not in broken)
        if step in broken:
            model.reference, model.want = before, want
            skipped(model)
        assert same_bits(on_host(model.params), model.want)
        assert step == 0 or model.same()
    assert {name for name, *_ in runtime.launches} >= {"check_finite", "update"}


@pytest.mark.parametrize("kwargs", [{}, {"nonfinite": "skip"}, {"clip_norm": 2.0}], ids=["alone", "guarded", "clipped"])
@optimizers
def test_stochastic_rounding_has_the_bits_of_numpy(runtime, decisions, make, kwargs):
    """Each tensor has a key of its own at each step; those of 32 bits go on as they are."""
    names = {(dtype, shape): (dtype, SHAPES[shape]) for dtype in DTYPES for shape in SHAPES}
    arrays = {name: draw(shape, dtype, 1) for name, (dtype, shape) in names.items()}
    model = Model(make(rounding="stochastic", seed=7, **kwargs), arrays)
    grads = powers_of_two if "clip_norm" in kwargs else draw
    for step in range(4):
        late = {name: step % 2 and name[1] == "odd" for name in names}  # counts that differ
        model.step({k: None if late[k] else grads(shape, dtype, step) for k, (dtype, shape) in names.items()})
        assert model.same()
    assert {name for name, *_ in runtime.launches} >= {"update"}


def test_stochastic_rounding_in_fortrans_order_runs_eagerly(runtime, eagerly):
    x = np.asfortranarray(draw((5, 6), "bfloat16", 1))
    xpopt.SGD(rounding="stochastic").update(on_device(x), on_device(x.copy(order="K")), "W")
    assert len(eagerly) == 1


def test_a_guarded_step_is_two_launches_and_waits_for_nothing(runtime, decisions):
    """The check is done when the device comes to it, and so is the choice."""
    runtime.driver = 12000
    arrays = many(400)
    model = Model(xpopt.Adam(nonfinite="skip"), arrays)
    model.reference.set_params({"nonfinite": "propagate"})
    runtime.deferred = True
    for step in range(4):
        before = len(runtime.launches)
        model.step({name: draw(x.shape, "float32", step) for name, x in arrays.items()})
        assert [name for name, *_ in runtime.launches[before:]] == ["check_finite", "update"]
    runtime.run("null")
    assert model.same()
    assert all(bool(values_of(x)) for x in decisions)


def within(grads: list[Any], limits: Any = np.inf) -> Any:
    return all_within(grads, [limits] * len(grads))


@every_dtype
def test_what_is_finite(runtime, dtype):
    """The largest numbers are; one element that is not decides, wherever it is."""
    most = {"float16": 65504.0, "bfloat16": 3.3895e38, "float32": 3.4e38, "float64": 1.7e308}[dtype]
    tensors = [draw(shape, dtype, 1) for shape in SHAPES.values()]
    tensors[-1][...] = most
    grads = [on_device(x) for x in [*tensors, draw((5,), "float32", 2)]]
    assert bool(values_of(within(grads)))
    for x in tensors:
        for value in (np.nan, np.inf, -np.inf):
            for place in (0, x.size // 2, -1) if x.size else ():
                kept = x.reshape(-1)[place].copy()
                x.reshape(-1)[place] = value
                assert not bool(values_of(within(grads)))
                x.reshape(-1)[place] = kept
    assert bool(values_of(within(grads)))
    assert bool(values_of(within([on_device(np.ones((0, 3), np.float32))])))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("clip_norm", [None, 2.0])
def test_a_product_that_is_not_finite_is_refused_as_on_the_host(runtime, decisions, dtype, clip_norm):
    """For squares the end is a power of two, which is too large. What is clipped to 2 is not."""
    power = 512 if dtype == "float64" else 64
    opt = xpopt.AdaGrad(nonfinite="skip", clip_norm=clip_norm)
    arrays = {name: draw(shape, dtype, 1) for name, shape in SHAPES.items()}
    params = {name: on_device(x) for name, x in arrays.items()}
    for step, (value, refused) in enumerate(
        [(2.0**power, True), (2.0 ** (power - 1), False), (-(2.0**power), True)] * 2
    ):
        grads = {name: draw(x.shape, dtype, step) for name, x in arrays.items()}
        grads["odd"].reshape(-1)[17] = value
        before = on_host(params)
        params = opt.update_all(params, {name: on_device(x) for name, x in grads.items()})
        refused = refused and clip_norm is None
        assert bool(values_of(decisions[-1])) == (not refused)
        assert same_bits(on_host(params), before) == refused
    assert {name for name, *_ in runtime.launches} >= {"check_finite", "update"}


@every_dtype
def test_limits_are_of_each_tensor(runtime, dtype):
    x = draw(SHAPES["odd"], dtype, 1)
    x.reshape(-1)[5] = -8.0
    other = draw(SHAPES["large"], dtype, 2)
    grads = [on_device(x), on_device(other), on_device(np.zeros((0, 3), x.dtype))]
    assert bool(values_of(all_within(grads, [8.0, 100.0, 1.0])))
    assert not bool(values_of(all_within(grads, [7.96875, 100.0, 1.0])))
    assert not bool(values_of(all_within(grads, [8.0, 0.0, 1.0])))
    assert not bool(values_of(all_within(grads, [8.0, -1.0, 1.0])))
    assert len({name for name, *_ in runtime.launches}) == 1


def test_gradients_that_have_no_place_in_a_launch(runtime):
    x = np.ones((4, 6), np.float32)
    assert within([on_device(x), on_device(x[:, ::2])]) is None

    def fail(**kwargs: Any) -> Any:
        raise RuntimeError("no compiler")

    runtime.RawModule = fail
    assert within([on_device(np.ones(3, np.float16))]) is None


def test_results_that_go_elsewhere_are_what_the_parameters_are(runtime, decisions):
    """Written by a launch of its own, and by one of a model that is kept."""
    arrays = {name: draw(shape, "float32", 1) for name, shape in SHAPES.items()}
    opt, params = xpopt.Adam(nonfinite="skip"), {name: on_device(x) for name, x in arrays.items()}
    for _ in range(3):
        out = {name: on_device(np.full_like(x, 7)) for name, x in arrays.items()}
        grads = {name: on_device(np.full_like(x, np.inf)) for name, x in arrays.items()}
        assert opt.update_all(params, grads, out=out) is out
        assert same_bits(on_host(out), arrays)
        single = on_device(np.full((7, 5), 7, np.float32))
        opt.update(params["matrix"], grads["matrix"], "alone", out=single)
        assert same_bits(values_of(single), arrays["matrix"])
    assert not any(bool(values_of(x)) for x in decisions)
    assert opt.cache["large"]["t"] == 3


@pytest.mark.parametrize("in_place", [False, True])
def test_another_policy_in_the_middle(runtime, decisions, in_place):
    """A model that is kept is guarded from then on, and no longer."""
    arrays = {name: draw(shape, "float32", 1) for name, shape in SHAPES.items()}
    model = Model(xpopt.Adam(), arrays)
    for policy in ("propagate", "skip", "propagate", "skip"):
        model.opt.set_params({"nonfinite": policy})
        for step in range(3):
            before = len(decisions)
            model.step({name: draw(x.shape, "float32", step) for name, x in arrays.items()}, in_place=in_place)
            assert len(decisions) - before == (policy == "skip")
            assert same_bits(on_host(model.params), model.want)
            if policy == "skip":
                grads = {name: on_device(np.full_like(x, np.nan)) for name, x in arrays.items()}
                got = model.opt.update_all(model.params, grads, out=model.params if in_place else None)
                assert same_bits(on_host(got), model.want)
                skipped(model)
    assert [bool(values_of(x)) for x in decisions] == [True, False] * 6


def test_policies_are_explained_as_they_run(runtime):
    """Nobody waits for a decision on the device, so that it costs no engine."""
    params = {"W": on_device(np.ones(4)), "b": on_device(np.ones(6))}
    for policy in ("propagate", "raise", "skip"):
        rows = xpopt.Adam(nonfinite=policy).explain({**params, "host": np.ones(3)})
        assert [(row.engine, row.launch) for row in rows] == [("cuda", 1), ("cuda", 1), ("blocked", 2)]


# What runs eagerly


def test_arrays_in_no_one_order_run_eagerly(runtime, eagerly):
    x, turned = np.ones((4, 6), np.float32), np.asfortranarray(np.ones((4, 6), np.float32))
    for param, grad in ((x, turned), (turned, x), (x[:, ::2], x[:, ::2]), (x[::-1], x[::-1])):
        xpopt.SGD().update(on_device(param), on_device(grad), "W")
    assert len(eagerly) == 4


@pytest.mark.parametrize("in_place", [False, True])
def test_all_of_a_tensor_in_fortrans_order_is_right(runtime, in_place):
    model = Model(xpopt.Adam(), {"W": draw((5, 6), "float32", 1).T, "b": draw((4, 6), "float32", 2)})
    for step in range(3):
        grads = {"W": draw((5, 6), "float32", step).T, "b": draw((4, 6), "float32", step)}
        model.step(grads, in_place=in_place)
    assert model.same()


def test_another_array_of_the_same_memory_is_updated_in_place(runtime, eagerly):
    """As the parameter itself; what is eager would come to `eagerly`."""
    values, grad = draw((12,), "float32", 1), draw((6,), "float32", 2)
    whole, g = on_device(values), on_device(grad)
    want = xpopt.Adam().update(values[3:9].copy(), grad, "W")
    opt, out = xpopt.Adam(), whole[3:9]
    assert opt.update(whole[3:9], g, "W", out=out) is out
    opt.update_all({"b": whole[9:]}, {"b": g[:3]}, out={"b": whole[9:]})
    assert same_bits(values_of(out), want)
    assert runtime.launches
    assert not eagerly
    with pytest.raises(ValueError, match="out of 'W' and out of 'c' share memory"):
        opt.update_all({"W": out, "c": out}, {"W": g, "c": g}, out={"W": whole[3:9], "c": whole[4:10]})


def test_results_that_go_where_others_are_read_run_eagerly(runtime, eagerly):
    memory = np.arange(9.0)
    shifted = on_device(memory[:8]), on_device(np.ones(8)), on_device(memory[1:])
    xpopt.SGD().update(shifted[0], shifted[1], "W", out=shifted[2])
    a, b, g = (on_device(np.ones(4)) for _ in range(3))
    xpopt.SGD().update_all({"a": a, "b": b}, {"a": g, "b": g}, out={"a": b, "b": a})
    assert len(eagerly) == 3


def test_a_slot_may_be_a_gradient(runtime):
    """Who has seen it keeps it as it was, so it is copied before it is written."""
    ours, theirs = xpopt.AdaGrad(), xpopt.AdaGrad()
    b, g = np.linspace(0.0, 1.0, 4), np.full(4, 0.5)
    ours.update(on_device(b), on_device(g), "a")
    new = ours.update(on_device(b), ours.cache["a"], "a")
    with xpopt.engine("eager"):
        theirs.update(b, g, "a")
        want = theirs.update(b, theirs.cache["a"], "a")
    assert same_bits(values_of(new), want)
    assert same_bits(on_host(ours.cache), theirs.cache)


@pytest.mark.parametrize("name", ["eager", "blocked"])
def test_an_engine_that_was_chosen(runtime, eagerly, name):
    x = on_device(np.ones(4))
    with xpopt.engine(name):
        xpopt.SGD().update(x, x, "W")
    assert len(eagerly) == 1
    with xpopt.engine("cuda"):
        xpopt.SGD().update(x, x, "W")
        xpopt.SGD().update(np.ones(4), np.ones(4), "W")
    assert eagerly == ["cupy", "numpy"]


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find CUDA headers"), OSError("disk full"), Exception("no kernel image")]
)
def test_without_a_compiler_it_runs_eagerly_after_one_warning(runtime, eagerly, error):
    def fail(**kwargs: Any) -> Any:
        raise error

    runtime.RawModule = fail
    x = on_device(np.ones(4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for opt in (xpopt.SGD(), xpopt.Adam(), xpopt.Adam(clip_norm=1.0)):
            opt.update(x, x, "W")
            opt.update_all({"a": x, "b": x}, {"a": x, "b": x})
    assert len(eagerly) == 9
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert str(error) in str(caught[0].message)
    assert "eagerly" in str(caught[0].message)


def test_explain_says_what_runs_it(runtime, monkeypatch):
    """Nothing is compiled for the answer."""
    monkeypatch.setattr(device.Device, "compile", None)
    params = {"W": on_device(np.ones((4, 6))), "b": on_device(np.ones(6)), "view": on_device(np.ones((4, 6))[:, ::2])}
    opt = xpopt.Adam()
    assert [(row.engine, row.launch) for row in opt.explain(params)] == [("cuda", 1), ("cuda", 1), ("eager", 2)]
    assert "contiguous" in opt.explain(params)[2].reason


def test_explain_says_why_there_is_no_kernel(runtime):
    runtime.cuda.runtime.is_hip = True
    params = {"W": on_device(np.ones(4)), "view": on_device(np.ones(8)[::2]), "host": np.ones(8)[::2]}
    with pytest.warns(UserWarning, match="ROCm"):
        rows = xpopt.Adam().explain(params)
    assert [row.engine for row in rows] == ["eager"] * 3
    assert ["ROCm" in row.reason for row in rows] == [True, False, False]


def test_on_rocm_it_runs_eagerly(runtime, eagerly):
    runtime.cuda.runtime.is_hip = True
    x = on_device(np.ones(4))
    with pytest.warns(UserWarning, match="ROCm"):
        xpopt.SGD().update(x, x, "W")
    assert len(eagerly) == 1


# Models of several libraries, errors, and copies


def test_a_model_of_numpy_and_cupy(runtime):
    opt, reference = xpopt.Adam(), xpopt.Adam()
    want = {"host": np.ones(5), "device": np.linspace(0, 1, 7)}
    params = {"host": np.ones(5), "device": on_device(np.linspace(0, 1, 7))}
    for step in range(3):
        grads = {name: draw(x.shape, "float64", step) for name, x in want.items()}
        params = opt.update_all(params, {"host": grads["host"], "device": on_device(grads["device"])})
        with xpopt.engine("eager"):
            want = reference.update_all(want, grads)
    assert same_bits(params["host"], want["host"])
    assert same_bits(values_of(params["device"]), want["device"])


@pytest.mark.parametrize(("count", "driver"), [(3, 13000), (70, 12000)], ids=["by value", "through a buffer"])
def test_nothing_changes_when_memory_runs_out(runtime, monkeypatch, count, driver):
    runtime.driver = driver
    model = Model(xpopt.Adam(clip_norm=1.0), many(count))
    grads = {name: powers_of_two(x.shape, "float32", 0) for name, x in model.want.items()}
    for _ in range(2):
        model.step(grads, in_place=True)

    def fail(*args: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "empty", fail)
        with pytest.raises(MemoryError):
            model.opt.update_all(model.params, {name: on_device(x) for name, x in grads.items()}, out=model.params)
    assert model.opt.cur_step == 2
    assert model.same()
    model.step(grads, in_place=True)
    assert model.same()


def test_a_number_that_fails_comes_before_anything_is_written(runtime):
    def rule(xp, param, grad, s, h):
        return param - h.lr / (h.t - 2) * grad, Two(s.fast + 1, s.slow - 1)

    opt, x, g = of_rule(rule)(), on_device(np.ones(3)), on_device(np.ones(3))
    opt.update_all([x], [g], out=[x])
    before = values_of(x).tolist()
    with pytest.raises(ZeroDivisionError):
        opt.update_all([x], [g], out=[x])
    assert values_of(x).tolist() == before
    assert opt.cur_step == 1


@pytest.mark.parametrize("kwargs", [{}, {"nonfinite": "skip"}], ids=str)
def test_the_next_update_of_one_parameter_prepares_nothing_anew(runtime, decisions, monkeypatch, kwargs):
    """It asks where each array lies, and what is in the way; a result may move, and go to the parameter itself."""
    opt, want = xpopt.Adam(**kwargs), xpopt.Adam(**kwargs)
    values, grads = draw((40,), "float32", 1), [draw((40,), "float32", seed) for seed in range(2, 7)]
    x = on_device(values)
    for k, out in enumerate([None, None, x, on_device(np.zeros(40, np.float32)), None]):
        if k == 2:  # for the first two have made kernels of the rule, on the device and on the host
            monkeypatch.setattr(choose, "launch_one", None)
        grad = grads[k]
        x, values = opt.update(x, on_device(grad), "W", out=out), want.update(values, grad, "W")
        assert same_bits(values_of(x), values)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_next_step_prepares_nothing_anew(runtime, monkeypatch, in_place):
    """It goes on from what the last one found out, also where gradients are missing; but asks where each array lies."""
    model = Model(xpopt.Adam(), many(20))
    names = [name for name in model.want if in_place or name % 5]

    def step(seed):
        grads = {name: draw(x.shape, "float32", seed) if name in names else None for name, x in model.want.items()}
        model.step(grads, in_place=in_place)

    for seed in range(2):
        step(seed)
    monkeypatch.setattr(choose, "_groups", None)
    for seed in range(2, 5):
        step(seed)
    assert model.same()


def test_a_gradient_that_is_turned_is_seen(runtime, eagerly):
    opt = xpopt.SGD()
    params = {"W": on_device(np.ones((6, 5))), "b": on_device(np.ones(5))}
    grads = {"W": on_device(np.ones((6, 5))), "b": on_device(np.ones(5))}
    for _ in range(3):
        opt.update_all(params, grads, out=params)
    assert not eagerly
    opt.update_all(params, {**grads, "W": on_device(np.ones((5, 6)).T)}, out=params)
    assert len(eagerly) == 1


def test_gradients_may_move_and_change(runtime):
    """What was found out about the last step is asked again at each: another place, order, shape or kind is seen."""
    model = Model(xpopt.Adam(), {"W": draw((6, 5), "float32", 0), "b": draw((5,), "float32", 1)})
    for step in range(4):
        model.step({name: draw(x.shape, "float32", step) for name, x in model.want.items()})
    b = model.params["b"]
    for grad, error in (
        (on_device(np.ones((5, 5), np.float32)), ValueError),  # of the same strides
        (on_device(np.ones((6, 5), np.int32)), TypeError),  # of the same size
        (on_device(np.ones((6, 5), np.float32), 1), ValueError),
        (np.ones((6, 5), np.float32), TypeError),
    ):
        with pytest.raises(error, match="'W'"):
            model.opt.update_all(model.params, {"W": grad, "b": b})
    model.step({name: draw(x.shape, "float32", 9) for name, x in model.want.items()}, in_place=True)
    assert model.same()
