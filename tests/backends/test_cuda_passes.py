"""Rules that reduce whole arrays, on the CUDA engine without a device: their numbers have NumPy's bits."""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import numpy as np
import nvrtc
import pytest
from _kit.bits import dtype_of, same_bits
from _kit.engines import forget_what_was_made, of_rule
from _kit.sums import added_up
from _kit.table import BY_RULE

import xpopt
from xpopt._arrays.namespace import library_of
from xpopt._arrays.sums import PIECE
from xpopt._engine import choose
from xpopt._engine.cuda import device
from xpopt._engine.together import together
from xpopt._graph.passes import cut
from xpopt._graph.rule import NoSlots
from xpopt._graph.trace import trace
from xpopt._print.cuda import OPTIONS, THREADS, print_cuda, printed
from xpopt._state.skipped import Skipped

cuda_on_cpu = pytest.importorskip("cuda_on_cpu")

needs_gxx = pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="g++, which compiles for the processor, is missing")

SHAPES = {"number": (), "none": (0,), "matrix": (7, 5), "odd": (4097,), "large": (5, 3_001)}


def of_sums(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    return param - xp.sum(grad) * (xp.max(grad) - xp.min(grad)) * grad, s


class Found(NamedTuple):
    """All reductions of a gradient, one of which needs the others."""

    sum: Any = xpopt.slot(shape=xpopt.one)
    mean: Any = xpopt.slot(shape=xpopt.one)
    norm: Any = xpopt.slot(start=0.5, shape=xpopt.one)
    max: Any = xpopt.slot(shape=xpopt.one)
    min: Any = xpopt.slot(shape=xpopt.one)
    fast: Any = xpopt.slot()


def finds(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    norm = 0.9 * s.norm + xp.linalg.vector_norm(grad)
    fast = 0.9 * s.fast + grad / (norm + h.lr)
    far = xp.max(fast) > xp.abs(xp.min(grad))
    step = xp.where(far, fast - xp.mean(fast), 0.5 * fast)
    return param - h.lr * step, Found(xp.sum(grad), xp.mean(grad), norm, xp.max(fast), xp.min(grad), fast)


def of_model(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Need two of the model at once, and then one that depends on both, and one of the tensor."""
    share = xp.abs(grad) / h.model.max(xp.abs(grad)) + 1e-3 * h.model.sum(grad) + xp.sum(grad)
    return param - h.lr * share / h.model.norm(share), s


class Sized(NamedTuple):
    size: Any = xpopt.slot(start=0.5, shape=xpopt.one)


def sized(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    size = 0.5 * s.size + xp.linalg.vector_norm(param)
    return param - h.lr * size * grad, Sized(size)


MAKE = {
    "all": of_rule(finds, Found),
    **{name: functools.partial(BY_RULE[name].make, lr=0.1) for name in ("LAMB", "LARS", "NovoGrad")},
    "agc": lambda **options: xpopt.SGD(lr=0.1, momentum=0.9, agc=0.01, **options),
}
CASES = [
    ("all", "float64", {}),
    ("all", "float16", {"rounding": "stochastic"}),
    ("all", "float32", {"clip_norm": 2.0}),
    ("LAMB", "float32", {}),
    ("LAMB", "bfloat16", {"master": True}),
    ("LARS", "float64", {"clip_norm": 2.0}),
    ("NovoGrad", "float32", {"slots_dtype": "bfloat16"}),
    ("agc", "float32", {}),
]


def draw(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape), dtype_of(dtype))


def powers_of_two(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """Gradients whose squares every sum adds up exactly: eager NumPy clips by a norm of its own order."""
    return np.asarray(np.random.default_rng(seed).choice([-8.0, -4.0, -1.0, 0.5, 2.0], shape), dtype_of(dtype))


def text_of(name: str, dtype: str, options: dict[str, Any], **rest: Any) -> str:
    settings = MAKE[name](**options)._parts.settings
    rule = settings.rule.of(dtype, (5,))
    kept = [rule.dtypes("float32")[k] for k in rule.wide] if rule.narrow else ()
    graph = trace(rule, settings.numbers_at(1), clipped="clip_norm" in options)
    return print_cuda(graph, dtype, drawn="rounding" in options, kept=kept, **rest)


@functools.cache
def build_all() -> None:
    """Compile all that is launched as one."""
    by_value = (*OPTIONS, f"-DTABLE_BYTES={device._SMALL}")
    cuda_on_cpu.build([(text_of(*case), by_value) for case in CASES])


@pytest.fixture
def runtime(monkeypatch):
    """A CuPy that needs no device, in the place of the one that does; devices and kernels start anew."""
    fake_cupy = pytest.importorskip("fake_cupy")
    build_all()
    fake = fake_cupy.FakeCuPy()
    monkeypatch.setattr(device, "_cupy", lambda: fake)
    forget_what_was_made(monkeypatch)
    monkeypatch.setattr(choose, "_warned", {})
    device.device.cache_clear()
    yield fake
    device.device.cache_clear()
    fake_cupy.KEPT_ALIVE.clear()


def on_host(x: Any) -> Any:
    """Return arrays over the memory in which a kernel on the processor has them."""
    import fake_cupy

    if isinstance(x, dict):
        return {name: on_host(value) for name, value in x.items()}
    return fake_cupy.values_of(x) if hasattr(x, "device") and not isinstance(x, np.ndarray | np.generic) else x


def on_device(values: dict[Any, Any]) -> dict[Any, Any]:
    import fake_cupy

    return {name: fake_cupy.on_device(x.copy(order="K")) for name, x in values.items()}


def compare(make: Any, arrays: dict[Any, Any], grads: Any, steps: int = 3) -> Any:
    """Update a model on the device and on the host, where eager NumPy does it; demand the same bits."""
    ours, theirs, params, want = make(), make(), on_device(arrays), arrays
    for step in range(steps):
        given = {name: grads(x.shape, str(x.dtype), 10 + step) for name, x in arrays.items()}
        params = ours.update_all(params, on_device(given), out=params if step == 1 else None)
        with xpopt.engine("eager"):
            want = theirs.update_all(want, given)
        assert same_bits(on_host(params), want)
        assert same_bits(on_host(dict(ours.cache)), dict(theirs.cache))
    return ours


@pytest.mark.backends("cupy")
@needs_gxx
@pytest.mark.parametrize(("name", "dtype", "options"), CASES, ids=str)
def test_bits_are_numpys(runtime, name, dtype, options):
    """Of all sizes, one of them in Fortran's order where that is read in order of memory, and of one alone."""
    arrays = {key: draw(shape, dtype, 1) for key, shape in SHAPES.items()}
    if "rounding" not in options:
        arrays["turned"] = np.asfortranarray(draw((31, 200), dtype, 2))

    def grads(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
        x = (powers_of_two if "clip_norm" in options else draw)(shape, dtype, seed)
        return np.asfortranarray(x) if shape == (31, 200) else x

    opt = compare(lambda: MAKE[name](**options), arrays, grads)
    assert {kernel for kernel, *_ in runtime.launches} >= {"measure_0", "find_reduced_0", "update"}
    assert {engine.engine for engine in opt.explain(on_device(arrays))} == {"cuda"}
    x, g = draw((70, 60), dtype, 3), powers_of_two((70, 60), dtype, 4)
    with xpopt.engine("eager"):
        want = MAKE[name](**options).update(x, g, "W")
    got = MAKE[name](**options).update(*on_device({"x": x, "g": g}).values(), "W")
    assert same_bits(on_host(got), want)


@pytest.mark.backends("cupy")
@needs_gxx
def test_the_host_waits_for_nothing(runtime):
    """Steps are prepared while the device has done nothing yet, and memory is taken before the first launch."""
    runtime.deferred = True
    arrays = {name: draw(shape, "float32", 1) for name, shape in SHAPES.items()}
    ours, theirs, params, want = MAKE["LAMB"](), MAKE["LAMB"](), on_device(arrays), arrays
    for step in range(3):
        grads = {name: draw(x.shape, "float32", step) for name, x in arrays.items()}
        params = ours.update_all(params, on_device(grads))
        with xpopt.engine("eager"):
            want = theirs.update_all(want, grads)
    runtime.run("null")
    assert same_bits(on_host(params), want)


@pytest.mark.backends("cupy")
@needs_gxx
def test_a_step_that_the_device_leaves_out_changes_nothing(runtime, monkeypatch):
    """Slots of one number neither, though what they are made of has been measured."""
    monkeypatch.setattr(Skipped, "unless", lambda self, proceed: self)  # the count, which CuPy's own kernels keep
    ours, theirs = (of_rule(sized, Sized)(nonfinite=policy) for policy in ("skip", "propagate"))
    arrays = {name: draw(shape, "float32", 1) for name, shape in SHAPES.items()}
    params, want = on_device(arrays), arrays
    for step in range(3):
        grads = {name: draw(x.shape, "float32", step) for name, x in arrays.items()}
        if step == 1:
            before = {
                name: {"t": 2, **{slot: np.array(x) for slot, x in entry.items() if slot != "t"}}
                for name, entry in on_host(dict(ours.cache)).items()
            }
            bad = {**grads, "odd": np.full_like(grads["odd"], np.inf)}
            params = ours.update_all(params, on_device(bad))
            assert same_bits(on_host(params), want)
            assert same_bits(on_host(dict(ours.cache)), before)
            theirs.set_params(cache_dict=before)
            continue
        params = ours.update_all(params, on_device(grads))
        with xpopt.engine("eager"):
            want = theirs.update_all(want, grads)
        assert same_bits(on_host(params), want)
        assert same_bits(on_host(dict(ours.cache)), dict(theirs.cache))
    assert {kernel for kernel, *_ in runtime.launches} >= {"check_finite", "measure_0", "find_ones", "update"}


@pytest.mark.backends("cupy")
@needs_gxx
def test_what_is_asked_of_a_model_is_found_on_the_device(runtime, monkeypatch):
    """Two dtypes, so that two launches answer before one writes; here the host joins what they have found."""
    x = on_device({"x": np.ones(3)})["x"]
    monkeypatch.setattr(type(library_of(x)), "to_numpy", lambda self, xs: [on_host(x) for x in xs])
    names = itertools.product(("matrix", "odd", "none"), ("float32", "float16"))
    arrays = {(name, dtype): draw(SHAPES[name], dtype, 1) for name, dtype in names}
    with together(lambda numbers: [value for _, value in numbers]):
        compare(of_rule(of_model, NoSlots), arrays, draw)
        compare(lambda: xpopt.Adam(lr=0.1, clip_global=0.5), arrays, draw, 2)
    launches = [kernel for kernel, *_ in runtime.launches]
    assert launches[: launches.index("update")].count("find_model_1") == 2
    with pytest.raises(TypeError, match=r"h\.model.*use update_all"):
        of_rule(of_model, NoSlots)().update(x, x, "W")


@pytest.mark.backends("numpy")
@needs_gxx
@pytest.mark.parametrize("pieces", [1, 2, 255, 257, 4096, 4097, 3 * 4096 + 5])
def test_the_sums_of_pieces_are_added_up_in_the_same_way(pieces):
    """More of them than there is memory for elements; the largest and the smallest stand beside the sum."""
    source = printed(
        cut(trace(of_rule(of_sums, NoSlots)()._parts.settings.rule)), "float64", guarded=False, drawn=False
    )
    find = cuda_on_cpu.module(source.text, OPTIONS).get_function("find_reduced_0")
    values = np.random.default_rng(pieces).standard_normal((pieces, 3))
    sums, table, found = values.copy(), np.array([0, 0, 0, pieces * PIECE - 5, 0, 0], np.int64), np.full(3, np.nan)
    find((1,), (THREADS,), (table.ctypes.data, sums.ctypes.data, found.ctypes.data))
    of_sum, largest, smallest = values.T.tolist()
    assert found.tolist() == [added_up(of_sum), max(largest), min(smallest)]


@pytest.mark.backends("cupy")
@pytest.mark.parametrize(
    ("case", "arch"), [*((case, "sm_80") for case in CASES), *((case, "sm_90") for case in CASES[:2])], ids=str
)
def test_it_compiles_for_devices(case, arch):
    guarded = arch == "sm_80"
    text = nvrtc.ptx(text_of(*case, guarded=guarded), OPTIONS, arch)
    assert all(f".entry {name}" in text for name in ("measure_0", "find_reduced_0", "find_ones", "update"))
    assert "fma" not in text


@pytest.mark.backends("cupy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_asks_for_the_model_compiles_for_devices(dtype):
    graph = trace(of_rule(of_model, NoSlots)()._parts.settings.rule)
    text = nvrtc.ptx(print_cuda(graph, dtype), OPTIONS, "sm_80")
    assert [f".entry find_model_{k}" in text for k in range(3)] == [True, True, False]
