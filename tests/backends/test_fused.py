"""The fused engines give eager NumPy's bits, whatever the rule, the values, the layout, and where results go."""

from __future__ import annotations

import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
from _kit.bits import compare, dtype_of, dyadic, normal, same_bits, special
from _kit.engines import MAKE, Two, few_rules, of_rule, rotating_dtypes
from _kit.table import SLOTTED

import xpopt
from xpopt._engine import choose
from xpopt._engine.host import BLOCK
from xpopt._graph.rule import NoSlots
from xpopt._state.cache import State
from xpopt._step.check import check

pytestmark = [pytest.mark.backends("numpy"), pytest.mark.usefixtures("fused")]

SIZES = [(), (0,), (1,), (7,), (3, 5), (4097,), (BLOCK,), (BLOCK + 1,), (5, 40_001)]


@pytest.mark.parametrize("name", MAKE)
def test_bits_are_eager_numpys_over_sizes(backend, name):
    compare(MAKE[name], SIZES, "float32", 3)


@rotating_dtypes
def test_bits_are_eager_numpys_over_50_steps(backend, name, dtype):
    compare(MAKE[name], [(), (33, 29)], dtype, 50)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_bits_are_eager_numpys_where_slots_start_elsewhere(backend, dtype):
    """In blocks that are shared, and in arrays of their own; at a setting, and at the parameter."""

    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        fast = 0.5 * s.fast + grad
        return param - h.lr * (fast + param - s.start), Beside(fast, s.start)

    make = of_rule(rule, Beside)
    compare(make, [(), (7,), (3, 5), (0,), (BLOCK + 1,)], dtype, 3)
    compare(make, [(3, 5), (2, 4), (5, 3001)], dtype, 2, layout=np.asfortranarray)


class Beside(NamedTuple):
    fast: Any = xpopt.slot(start=0.1)
    start: Any = xpopt.slot(start="param")


@pytest.mark.parametrize("row", SLOTTED, ids=str)
def test_bits_are_eager_numpys_of_algorithms_with_slots_of_their_own(backend, row):
    """Some with one number of each tensor; clipped, drawn from and kept in two precisions as any."""
    shapes = [(), (7,), (3, 5), (0,), (BLOCK + 1,)]
    compare(row.make, shapes, "float32", 3)
    compare(row.make, shapes[:3], "float64", 3)
    compare(lambda: row.make(clip_norm=0.5), shapes[1:3], "float32", 3, dyadic)
    for options in ({}, {"master": True}, {"rounding": "stochastic"}):
        compare(lambda options=options: row.make(**options), shapes[:3], "bfloat16", 3)


class Kept(NamedTuple):
    fast: Any = xpopt.slot(start=0.1, dtype="float16")
    slow: Any = xpopt.slot(dtype="bfloat16")
    size: Any = xpopt.slot(dtype="float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_bits_are_eager_numpys_of_narrower_slots(backend, dtype):
    """Machine code converts them; blocks leave them to the eager engine, and so does all if 16 bits meet float64."""
    pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has NumPy's bfloat16, is missing")

    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        fast, slow = 0.7 * s.fast + 0.3 * grad, 0.9 * s.slow + 0.1 * grad * grad
        return param - h.lr * fast / (xp.sqrt(slow) + 0.1) + s.size, Kept(fast, slow, s.size + abs(grad))

    shapes = [(), (7,), (3, 5), (0,), (70_001,)]
    compare(of_rule(rule, Kept), shapes, dtype, 3)
    compare(of_rule(rule, Kept), [(999,)], dtype, 3, special)
    compare(lambda: xpopt.Adam(slots_dtype="float32"), shapes, dtype, 3)
    compare(lambda: xpopt.Adam(slots_dtype="bfloat16", master=True), shapes[:3], dtype, 3)


def test_machine_code_converts_narrower_slots(backend, fused):
    x = np.ones((300, 400), np.float32)
    (row,) = xpopt.Adam(slots_dtype="bfloat16").explain([x])
    assert (row.engine, row.state_bytes) == ("compiled" if fused == "compiled" else "eager", 4 * x.size)
    (row,) = xpopt.Adam(slots_dtype="bfloat16").explain([x.astype(np.float64)])
    assert (row.engine, row.reason) == ("eager", "a slot is of another dtype than the arithmetic")


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


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_bits_are_eager_numpys_where_numbers_of_the_tensor_meet_all_else(backend, dtype):
    compare(of_rule(mixed, Mixed), [(), (7,), (3, 5), (0,), (5001,)], dtype, 5)


class Alone(NamedTuple):
    count: Any = xpopt.slot(shape=xpopt.one)


def test_bits_are_eager_numpys_where_one_number_is_all_the_state(backend):
    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        return param - h.lr * grad / (s.count + 1), Alone(s.count + 1)

    make = of_rule(rule, Alone)
    compare(make, [(), (7,), (3, 5)], "float32", 3)
    make.entry = "array"
    compare(make, [(), (7,), (3, 5)], "float32", 3)


NARROW = ["float16", "bfloat16"]


@pytest.mark.parametrize("dtype", NARROW)
@few_rules
def test_bits_of_master_copies_are_eager_numpys(backend, name, dtype):
    """Over sizes, clips, and values that overflow 16 bits, or are not finite."""
    compare(lambda: MAKE[name](master=True), SIZES, dtype, 4)
    compare(lambda: MAKE[name](master=True), [(999,), ()], dtype, 6, special)
    compare(lambda: MAKE[name](master=True, clip_norm=0.5), [(1001,), (70_001,)], dtype, 3)


SHARED = [(7,), (1000, 1000), (65_537,)]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@few_rules
def test_bits_are_eager_numpys_where_threads_share_the_work(backend, name, dtype):
    with xpopt.num_threads(3):
        compare(MAKE[name], SHARED, dtype, 2)


@pytest.mark.parametrize("dtype", NARROW)
def test_bits_of_master_copies_are_eager_numpys_where_threads_share_the_work(backend, dtype):
    with xpopt.num_threads(3):
        compare(lambda: MAKE["Adam"](master=True), SHARED, dtype, 2)


@rotating_dtypes
def test_bits_are_eager_numpys_for_special_values(backend, name, dtype):
    compare(MAKE[name], [(999,), ()], dtype, 3, special)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@few_rules
def test_bits_are_eager_numpys_under_a_clip(backend, name, dtype):
    """The sum of the squares is one of float64 in any order, far finer than the factor that is made of it."""
    for draw in (normal, special):
        compare(lambda: MAKE[name](clip_norm=0.5), [(), (0,), (1001,), (70_001,)], dtype, 5, draw)


@few_rules
def test_each_tensor_has_its_own_bound(backend, name):
    """In one launch; some share a block, one is large, and some are not clipped."""
    bounds = [0.5, 3.0, None, 1e-30, 0.5, 3.0, None]
    sizes = [(7,), (5, 3), (7,), (), (1001,), (70_001,), (0,)]
    opt, rng = MAKE[name](), np.random.default_rng(5)
    settings, rule = opt._parts.settings.of_rule, opt._parts.settings.rule
    numbers = {bound: rule.scalars_at(settings | {"clip_norm": bound}, 0.1, 1) for bound in bounds}
    tensors = []
    for k, (size, bound) in enumerate(zip(sizes, bounds, strict=True)):
        param, grad = (np.asarray(draw(rng, size), np.float32) for draw in (normal, dyadic))
        tensor = check(State(), rule, param, grad, k, lambda spec, name: None)
        tensor.h = numbers[bound]
        tensors.append(tensor)
    launched, model = choose.launch(tensors)
    launched.finish()
    assert all(group.in_place for group in model.groups)
    for tensor, bound, new, slots in zip(tensors, bounds, launched.results, launched.slots, strict=True):
        alone = MAKE[name](clip_norm=bound)
        with xpopt.engine("eager"):
            assert same_bits(new, alone.update(tensor.param, tensor.grad, "W"))
        kept = alone.cache.get("W")
        assert same_bits(dict(zip(rule.fields, slots, strict=True)), named(rule, kept))


def named(rule: Any, entry: Any) -> dict[str, Any]:
    """Return the slots in an entry of the cache by their names."""
    return {k: x for k, x in entry.items() if k != "t"} if isinstance(entry, dict) else {rule.fields[0]: entry}


def assert_near_eager(clip_norm: float, grad: Any) -> None:
    """Demand that a step from 0, in float64, is eager NumPy's within some roundings."""
    start = np.zeros(grad.shape)
    moved = xpopt.SGD(lr=1, clip_norm=clip_norm).update(start, grad, "W")
    with xpopt.engine("eager"):
        want = xpopt.SGD(lr=1, clip_norm=clip_norm).update(start, grad, "W")
    np.testing.assert_allclose(moved, want, rtol=16 * 2.0**-52)


def test_a_clip_factor_of_float64_is_eagers_but_for_the_order_of_its_sum(backend):
    """Its own bits where that is exact, else within a few roundings."""
    compare(lambda: xpopt.SGD(lr=0.1, clip_norm=0.5), SIZES, "float64", 3, dyadic)
    for size in (3, 4097, 200_003):
        assert_near_eager(0.5, np.random.default_rng(size).standard_normal(size))


@pytest.mark.parametrize("clip_norm", [1e-250, 1.0, 1e250])
@pytest.mark.parametrize("scale", [1e-200, 1e200, np.inf, np.nan])
def test_clip_factors_whose_sums_float64_cannot_hold(backend, scale, clip_norm):
    with np.errstate(all="raise"):
        assert_near_eager(clip_norm, scale * np.arange(1.0, 5))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@few_rules
def test_bits_are_eager_numpys_under_a_clip_far_below_the_gradient(backend, name, dtype):
    """The factor is no number of the dtype; the sum is exact in any order. Some tensors are clipped like any."""
    large = 2.0**1000 if dtype == "float64" else 2.0**120

    def draw(rng, shape):
        return dyadic(rng, shape) * (large if len(shape) == 1 else 1.0)

    shapes = [(), (0,), (3,), (7, 2), (1001,), (70_001,)]
    compare(lambda: MAKE[name](clip_norm=0.5 / large), shapes, dtype, 3, draw)


def offset(by: int) -> Any:
    """Return what copies an array to an address that is `by` bytes off."""

    def layout(x: Any) -> Any:
        moved = np.empty(x.nbytes + 64, np.uint8)
        start = -moved.ctypes.data % 64 + by
        moved = moved[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
        moved[...] = x
        return moved

    return layout


LAYOUTS = {
    "F order": np.asfortranarray,
    "every second": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "4 bytes off": offset(4),
    "1 byte off": offset(1),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_is_right(backend, layout, dtype):
    compare(MAKE["Adam"], [(6, 5), (300, 400)], dtype, 3, normal, layout)
    compare(lambda: MAKE["Adam"](master=True), [(6, 5), (300, 400)], dtype, 3, normal, layout)


@pytest.mark.parametrize("dtype", NARROW)
def test_a_step_in_place_with_copies_allocates_nothing_of_the_models_size(backend, dtype):
    size = 2_000_000
    opt, params, grads = xpopt.Adam(master=True), *({"W": np.ones(size, dtype_of(dtype))} for _ in range(2))
    for _ in range(2):
        opt.update_all(params, grads, out=params)
    tracemalloc.start()
    opt.update_all(params, grads, out=params)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak <= size


def test_mixed_layouts_are_right(backend):
    rng = np.random.default_rng(3)
    for order_p, order_g in (("C", "F"), ("F", "C")):
        eager, fused = xpopt.Adam(), xpopt.Adam()
        p = q = np.array(rng.standard_normal((30, 40)), order=order_p)
        for _ in range(3):
            g = np.array(rng.standard_normal((30, 40)), order=order_g)
            with xpopt.engine("eager"):
                p = eager.update(p, g, "W")
            q = fused.update(q, g, "W")
            assert same_bits(p, q)


def every_function(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    fast = xp.where(grad > 0.1, s.fast * 0.5, xp.maximum(s.fast, -grad))
    slow = xp.clip(s.slow + abs(grad) ** 2, 0.0, 3.0) + xp.square(xp.minimum(fast, 1))
    flat = xp.isnan(grad) | ~xp.isfinite(grad) & (grad <= 0) ^ xp.isinf(slow)
    step = xp.where(flat, xp.sign(param), xp.sqrt(slow) ** 0.5 / (slow + 2))
    return param - (h.lr**2 - 1) * step + 2 - xp.where(fast == slow, fast, 1.0), Two(fast, slow)


REWIRED = {
    "slots swapped": lambda xp, p, g, s, h: (p - g, Two(s.slow, s.fast)),
    "one value twice": lambda xp, p, g, s, h: (s.fast + g, Two(s.fast + g, s.slow)),
    "everything kept": lambda xp, p, g, s, h: (p, Two(s.fast, s.slow)),
    "inputs handed on": lambda xp, p, g, s, h: (g, Two(p, g)),
    "sign momentum": lambda xp, p, g, s, h: (
        p - h.lr * xp.where(xp.sign(s.fast) == xp.sign(g), xp.sign(g), 0.0 * g) / (abs(s.slow) + 1e-3),
        Two(0.9 * s.fast + (1 - 0.9) * g, s.slow + g * g),
    ),
    "no numbers": lambda xp, p, g, s, h: (p - g, Two(s.fast * g, -s.slow)),
    "the gradient is not read": lambda xp, p, g, s, h: (p * h.lr, Two(s.fast + 1, s.slow)),
    "where reads its target last": lambda xp, p, g, s, h: (
        xp.where(g > 0, p, g),
        Two(xp.where(g > 0, s.fast, s.slow), xp.where(s.fast > 0, s.slow, s.fast)),
    ),
    "every function": every_function,
    "a negative number to a power": lambda xp, p, g, s, h: (p + (-1) ** h.t * g, Two(s.fast - -2 * g, s.slow)),
    "a number that may be missing": lambda xp, p, g, s, h: (p - getattr(h, "wd", 0.5) * g, s),
}


@pytest.mark.parametrize("case", REWIRED)
def test_own_rules_have_the_same_bits(backend, case):
    """In float32, and in one more dtype that changes from rule to rule."""
    for dtype in ("float32", ("float16", "float64")[list(REWIRED).index(case) % 2]):
        for draw in (normal, special):
            compare(of_rule(REWIRED[case]), [(53,), (5000,)], dtype, 4, draw)


NAMES = ["grad", "param", "multiply", "c0", "x0", "new_param", "copyto"]  # as other values are in a kernel
NAMES += ["at_param", "s_x", "row", "i", "numbers", "kernel", "float32", "lr", "λ"]


def test_slots_may_be_called_anything(backend):
    Odd = NamedTuple("Odd", [(name, Any) for name in NAMES])

    def rule(xp, param, grad, s, h):
        new = Odd(*(0.5 * slot + grad for slot in s))
        return param - h.lr * new.multiply - s.grad, new

    compare(of_rule(rule, Odd), [(11,)], "float64", 3)


def test_values_may_be_called_anything(backend):
    def rule(xp, table, pieces, s, h):
        numbers = table * 2
        i = pieces + numbers
        at = numbers * i
        sqrt = xp.sqrt(at * at + 1)
        float32 = sqrt + i
        row = float32 * 1.5
        kernel = at_param = row + float32
        uint16 = at_param * kernel
        λ = uint16 - at
        return λ * h.lr - λ * λ, s

    compare(of_rule(rule, NoSlots), [(11,)], "float32", 3)


def test_numbers_beyond_float32_are_infinite_as_in_numpy(backend):
    compare(lambda: xpopt.SGD(lr=1e300), [(5,)], "float32", 2, lambda rng, shape: np.ones(shape))


def test_numpys_scalars_out_of_scalars_promote_nothing(backend):
    class Own(xpopt.OptimizerBase):
        @staticmethod
        def scalars(h):
            return {"rate": np.sqrt(h.lr)}

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.rate * grad, s

    compare(lambda: Own(0.25), [(5,)], "float32", 2)
