"""Reductions of whole arrays, and of whole models: their order, their extremes, and the same bits on all engines."""

from __future__ import annotations

import math
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.bits import cast, compare, dyadic, normal, same_bits, special
from _kit.engines import of_rule
from _kit.sums import added_up

import xpopt
from xpopt._arrays.namespace import library_of
from xpopt._engine.together import together
from xpopt._graph.rule import NoSlots

on_numpy = pytest.mark.backends("numpy")
fuses = pytest.mark.usefixtures("fused")

SIZES = [1, 3, 255, 257, 4095, 4097, 16_384, 16_385, 65_537]


class Found(NamedTuple):
    """All reductions of a gradient."""

    sum: Any = xpopt.slot(shape=xpopt.one)
    mean: Any = xpopt.slot(shape=xpopt.one)
    norm: Any = xpopt.slot(shape=xpopt.one)
    max: Any = xpopt.slot(shape=xpopt.one)
    min: Any = xpopt.slot(shape=xpopt.one)


def finds(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    norm = xp.linalg.vector_norm(grad)
    return param - h.lr * grad, Found(xp.sum(grad), xp.mean(grad), norm, xp.max(grad), xp.min(grad))


FINDS = of_rule(finds, Found)


def found(grad: Any) -> dict[str, Any]:
    opt = FINDS()
    opt.update(np.zeros_like(grad), grad, "W")
    return {name: value for name, value in opt.cache["W"].items() if name != "t"}


@on_numpy
@pytest.mark.parametrize("size", SIZES)
def test_sums_are_taken_in_one_order(backend, size):
    dtype = ("float16", "float32", "float64")[size % 3]
    grad = cast(normal(np.random.default_rng(size), (size,)) * 2.0 ** (size % 9), dtype)
    values, compute = grad.astype(float).tolist(), np.float64 if dtype == "float64" else np.float32
    of = found(grad)
    assert of["sum"] == compute(added_up(values))
    assert of["mean"] == compute(added_up(values) / size)
    assert of["norm"] == compute(math.sqrt(added_up([x * x for x in values])))
    assert (of["max"], of["min"]) == (max(values), min(values))


@on_numpy
def test_the_sums_of_pieces_are_added_up_in_the_same_way(backend):
    pieces = 4097
    ends = normal(np.random.default_rng(3), (pieces,))
    grad = np.zeros(pieces * 4096)
    grad[::4096] = ends
    assert found(grad)["sum"] == added_up(ends.tolist())


@on_numpy
@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: np.moveaxis(np.ascontiguousarray(x), 0, 1)])
def test_elements_are_taken_in_the_order_of_memory_or_else_in_c_order(backend, layout):
    grad = layout(normal(np.random.default_rng(5), (20, 30, 40)))
    in_order = grad.T if grad.flags.f_contiguous else grad  # which C order is, of what is in neither
    assert found(grad)["sum"] == added_up(in_order.reshape(-1).tolist())


@on_numpy
@pytest.mark.parametrize(
    ("values", "norm"),
    [([3e200, 4e200], 5e200), ([3e-200, 4e-200], 5e-200), ([5e-324, 0.0], 5e-324), ([1e300, 1e-300], 1e300)],
)
def test_norms_of_float64_neither_overflow_nor_vanish(backend, values, norm):
    assert found(np.array(values))["norm"] == pytest.approx(norm, rel=1e-15, abs=0)


@on_numpy
def test_norms_of_float32_neither_overflow_nor_vanish(backend):
    assert found(np.array([3e30, 4e30], np.float32))["norm"] == np.float32(5e30)
    assert found(np.array([3e-45, 4e-45], np.float32))["norm"] == np.float32(5e-45)


@on_numpy
def test_what_is_no_number_stays_visible(backend):
    of = found(np.array([1.0, np.nan, 2.0]))
    assert all(math.isnan(value) for value in of.values())
    of = found(np.array([1.0, -np.inf, 2.0]))
    assert (of["sum"], of["norm"], of["max"], of["min"]) == (-math.inf, math.inf, 2.0, -math.inf)


@on_numpy
def test_no_zero_is_negative(backend):
    assert not any(math.copysign(1, value) < 0 for value in found(np.full(3, -0.0)).values())


@on_numpy
def test_nothing_comes_to_what_sums_and_extremes_start_from(backend):
    of = found(np.zeros(0))
    assert (of["sum"], of["norm"], of["max"], of["min"]) == (0.0, 0.0, -math.inf, math.inf)
    assert math.isnan(of["mean"])


class Chain(NamedTuple):
    mean: Any
    size: Any = xpopt.slot(start=0.5, shape=xpopt.one)


def chained(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Need two passes that measure: of the gradient, and of what is made with its norm."""
    size = 0.9 * s.size + 0.1 * xp.linalg.vector_norm(grad)
    mean = 0.9 * s.mean + grad / (size + 0.1)
    step = xp.where(xp.max(mean) > xp.abs(xp.min(mean)), mean - xp.mean(mean), 0.5 * mean)
    return param - h.lr * xp.minimum(xp.sum(param), 2.0) * step, Chain(mean, size)


CHAINED = of_rule(chained, Chain)

SHAPES = [(), (0,), (1,), (3, 5), (4097,), (65_537,), (5, 40_001)]


@on_numpy
@fuses
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_are_eager_numpys(backend, dtype):
    compare(CHAINED, SHAPES, dtype, 2)
    compare(CHAINED, [(3, 5), (4097,)], dtype, 2, special)
    rng = np.random.default_rng(12)
    param, grad = (np.asfortranarray(cast(normal(rng, (31, 200)), dtype)) for _ in range(2))
    here, eager = CHAINED(), CHAINED()
    with xpopt.engine("eager"):
        of_eager = eager.update(param, grad, "W")
    assert same_bits(here.update(param, grad, "W"), of_eager)
    assert same_bits(here.cache, eager.cache)


def trusting(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Need one pass, as LARS does."""
    trust = xp.linalg.vector_norm(param) / (xp.linalg.vector_norm(grad) + 1e-3)
    return param - h.lr * trust * grad, s


TRUSTING = of_rule(trusting, NoSlots)


@on_numpy
@fuses
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"master": True}, {"rounding": "stochastic"}], ids=str)
def test_bits_are_eager_numpys_with_16_bits_in_all_their_forms(backend, options):
    draw = dyadic if "clip_norm" in options else normal  # of these the eager engine finds the same norm
    compare(lambda: TRUSTING(**options), [(), (0,), (3, 5), (4097,)], "float16", 2, draw)


@on_numpy
@pytest.mark.llvmlite
def test_bits_do_not_depend_on_threads(backend):
    rng, results = np.random.default_rng(8), []
    param, grad = (normal(rng, (5_000_001,)).astype(np.float32) for _ in range(2))
    with xpopt.engine("eager"):
        results.append(TRUSTING().update_all([param], [grad])[0])
    for threads in (1, 2, 3, 4):
        with xpopt.engine("compiled"), xpopt.num_threads(threads):
            results.append(TRUSTING().update_all([param], [grad])[0])
    assert all(same_bits(results[0], x) for x in results[1:])


@on_numpy
@fuses
def test_of_complex_parameters_all_reals_are_reduced(backend):
    rng = np.random.default_rng(9)
    grad = normal(rng, (30, 200)) + 1j * normal(rng, (30, 200))
    for layout in (np.ascontiguousarray, np.asfortranarray):
        opt = FINDS()
        opt.update(layout(np.zeros_like(grad)), layout(grad), "W")
        assert opt.cache["W"]["norm"] == pytest.approx(np.linalg.norm(grad), rel=1e-14)
        assert opt.cache["W"]["sum"] == pytest.approx((grad.real + grad.imag).sum(), abs=1e-11)
        with xpopt.engine("eager"):
            eager = FINDS()
            eager.update(layout(np.zeros_like(grad)), layout(grad), "W")
        assert same_bits(eager.cache, opt.cache)


@pytest.mark.any_width
def test_other_libraries_reduce_in_an_order_of_their_own(backend):
    """Chained in float64 against NumPy's in float64; the bound is of sums of a thousand numbers in float32."""
    rng = np.random.default_rng(2)
    values = [normal(rng, (30, 40)).astype(np.float32) for _ in range(2)]
    opt = CHAINED()
    new = backend.numpy(opt.update(*(backend.array(x) for x in values), "W"))
    wide = CHAINED().update(*(x.astype(np.float64) for x in values), "W")
    np.testing.assert_allclose(new, wide, rtol=1e-4, atol=1e-5)


# Whole models


def of_model(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Need two of the model at once, and then one that depends on both."""
    share = xp.abs(grad) / h.model.max(xp.abs(grad)) + 1e-3 * h.model.sum(grad)
    return param - h.lr * share / h.model.norm(share), s


OF_MODEL = of_rule(of_model, NoSlots)


def by_hand(params: list[Any], grads: list[Any]) -> list[Any]:
    """Compute one step of it in float64."""
    every = np.concatenate([np.asarray(x, float).reshape(-1) for x in grads])
    shares = [np.abs(x) / np.abs(every).max() + 1e-3 * math.fsum(every) for x in (np.asarray(x, float) for x in grads)]
    norm = math.sqrt(math.fsum(float((x * x).sum()) for x in shares))
    return [np.asarray(p, float) - 0.1 * x / norm for p, x in zip(params, shares, strict=True)]


@pytest.mark.any_width
def test_a_rule_is_told_of_the_whole_model(backend):
    rng = np.random.default_rng(4)
    values = [[normal(rng, shape).astype(np.float32) for shape in ((3, 4), (), (500,))] for _ in range(2)]
    params, grads = ([backend.array(x) for x in of] for of in values)
    opt = OF_MODEL()
    for new, wanted in zip(opt.update_all(params, grads), by_hand(*values), strict=True):
        np.testing.assert_allclose(backend.numpy(new), wanted, rtol=1e-5, atol=1e-6)


@on_numpy
@fuses
def test_several_launches_add_up_before_any_writes(backend):
    """Two dtypes, one of them in two layouts, of which one runs eagerly; small and large, in place and by a plan."""
    rng = np.random.default_rng(6)
    values = [normal(rng, (20, 30)), normal(rng, (5, 4000)).astype(np.float32), normal(rng, ()), normal(rng, (6, 8))]
    grads = [np.asarray(x * 0.5 + 1, x.dtype) for x in values]
    turned = [np.ascontiguousarray(x.T).T[:, ::2] if x.shape == (6, 8) else x.copy() for x in (*values, *grads)]
    mine, of_mine = turned[:4], turned[4:]
    wanted, opt, eager = by_hand(mine, of_mine), OF_MODEL(), OF_MODEL()
    for step in range(3):
        with xpopt.engine("eager"):
            alike = eager.update_all([x.copy() for x in mine], of_mine)
        opt.update_all(mine, of_mine, out=mine)
        assert all(same_bits(np.asarray(a), np.asarray(b)) for a, b in zip(alike, mine, strict=True))
        if step == 0:
            for new, x in zip(mine, wanted, strict=True):
                np.testing.assert_allclose(new, x, rtol=1e-6, atol=1e-6)


@on_numpy
def test_two_libraries_are_one_model(backend):
    xp = pytest.importorskip("array_api_strict")
    rng = np.random.default_rng(7)
    values = [[normal(rng, shape) for shape in ((3, 4), (50,))] for _ in range(2)]
    params, grads = ([of[0], xp.asarray(of[1])] for of in values)
    for new, wanted in zip(OF_MODEL().update_all(params, grads), by_hand(*values), strict=True):
        np.testing.assert_allclose(np.asarray(new), wanted, rtol=1e-12)


def test_one_parameter_is_no_model(backend):
    x = backend.array(np.ones(3, np.float32))
    for opt in (OF_MODEL(), OF_MODEL(clip_norm=1.0)):
        with pytest.raises(TypeError, match=r"h\.model.*use update_all"):
            opt.update(x, x, "W")
        assert opt.cache == {}
        assert opt.cur_step == 0


@on_numpy
def test_norms_of_models_neither_overflow_nor_vanish(backend):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return grad / h.model.norm(grad), s

    for large, small in ((3e200, 4e200), (3e-200, 4e-200)):
        grads = [np.array([large]), np.array([small])]
        new = of_rule(rule, NoSlots)().update_all([np.zeros(1), np.zeros(1)], grads)
        np.testing.assert_allclose(np.concatenate(new), [0.6, 0.8], rtol=1e-15)
    mixed = [np.array([3e200]), np.array([1.0], np.float32)]
    assert of_rule(rule, NoSlots)().update_all([np.zeros(1), np.zeros(1, np.float32)], mixed)[0] == 1.0


@on_numpy
def test_rules_that_ask_in_different_orders_are_told(backend):
    class Backwards(xpopt.OptimizerBase):
        lr: float = xpopt.setting(default=0.1)

        @staticmethod
        def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
            return param - grad * h.model.max(grad / h.model.norm(grad)), s

    opt = OF_MODEL(groups={"b": Backwards()})
    params = {"a": np.ones(3), "b": np.ones(3)}
    with pytest.raises(TypeError, match="in different orders"):
        opt.update_all(params, params)
    assert opt.cache == {}


@on_numpy
def test_processes_may_decide_together(backend):
    """Two optimizers, each with a half of a model, find what one does with the whole."""
    rng, barrier, said = np.random.default_rng(10), threading.Barrier(2, timeout=60), {}
    params, grads = ([normal(rng, (n,)) for n in (7, 5000)] for _ in range(2))
    whole = OF_MODEL().update_all(params, grads)
    join = {"add": lambda a, b: a + b, "maximum": max, "minimum": min}
    results: list[Any] = [None, None]

    def half(k: int) -> None:
        def decide(numbers: Any) -> list[float]:
            said[k] = [value for _, value in numbers]
            barrier.wait()
            both = [join[how](a, b) for (how, _), a, b in zip(numbers, said[0], said[1], strict=True)]
            barrier.wait()
            return both

        with together(decide):
            results[k] = OF_MODEL().update_all([params[k]], [grads[k]])[0]

    threads = [threading.Thread(target=half, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, of_whole in zip(results, whole, strict=True):
        np.testing.assert_allclose(mine, of_whole, rtol=1e-14)


@pytest.mark.backends("dask")
def test_dask_stays_lazy(backend):
    """Sums of the model are computed with the results, and not before."""
    import dask

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was computed")

    rng = np.random.default_rng(13)
    values = [[normal(rng, shape) for shape in ((3, 4), (500,))] for _ in range(2)]
    params, grads = ([backend.array(x) for x in of] for of in values)
    with dask.config.set(scheduler=refuse):
        new = OF_MODEL().update_all(params, grads)
    for x, wanted in zip(new, by_hand(*values), strict=True):
        np.testing.assert_allclose(backend.numpy(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.backends("jax")
def test_jax_does_not_wait(backend, monkeypatch):
    """Whoever asks an array for its value is refused."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a value was read")

    rng = np.random.default_rng(14)
    values = [[normal(rng, shape) for shape in ((3, 4), (500,))] for _ in range(2)]
    params, grads = ([backend.array(x) for x in of] for of in values)
    with monkeypatch.context() as patched:
        for name in ("__float__", "__bool__", "__array__", "item", "tolist"):
            patched.setattr(type(params[0]), name, refuse)
        patched.setattr(type(library_of(params[0])), "to_numpy", refuse)
        with pytest.raises(AssertionError, match="a value was read"):
            float(grads[1][0])
        new = OF_MODEL().update_all(params, grads)
    for x, wanted in zip(new, by_hand(*values), strict=True):
        np.testing.assert_allclose(backend.numpy(x), wanted, rtol=1e-5, atol=1e-6)


WRONG = {
    "an axis without a name": (lambda xp, grad: xp.sum(grad, 0), r"xp\.sum .*2 arguments without a name; .*axis=0"),
    "an array by name": (lambda xp, grad: xp.sum(x=grad), r"xp\.sum .*0 arguments without a name"),
    "a norm": (lambda xp, grad: xp.linalg.vector_norm(grad, 0), r"xp\.linalg\.vector_norm .*2 arguments"),
    "a number": (lambda xp, grad: xp.max(3.0), r"xp\.max .*a float; wanted one, an array"),
}


@on_numpy
@pytest.mark.filterwarnings("ignore:.*cannot be traced")
@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("engine", ["eager", "blocked"])
def test_reductions_are_called_as_in_the_standard(backend, call, message, engine):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - call(xp, grad) * grad, s

    opt = of_rule(rule, NoSlots)()
    with xpopt.engine(engine), pytest.raises(TypeError, match=message):
        opt.update(np.ones(2), np.ones(2), "W")


@on_numpy
@pytest.mark.filterwarnings("ignore:.*cannot be traced")
def test_a_norm_is_named_as_it_is_called(backend):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - xp.linalg.vector_norm(grad, ord=1) * grad, s

    with pytest.raises(TypeError, match=r"calls xp\.linalg\.vector_norm with ord=1"):
        xpopt.kernel_source(of_rule(rule, NoSlots)(), "llvm")
