"""The blocked engine gives eager NumPy's bits, in place too, and fails before it writes."""

from __future__ import annotations

import re
import threading
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpopt
from xpopt._engine import blocked
from xpopt._graph import trace
from xpopt._print import print_numpy
from xpopt._rule import Rule

pytestmark = pytest.mark.backends("numpy")

MAKE = {
    "SGD": lambda **kw: xpopt.SGD(lr=0.1, **kw),
    "momentum": lambda **kw: xpopt.SGD(lr=0.1, momentum=0.9, **kw),
    "AdaGrad": lambda **kw: xpopt.AdaGrad(lr=0.1, **kw),
    "RMSProp": lambda **kw: xpopt.RMSProp(lr=0.1, **kw),
    "Adam": lambda **kw: xpopt.Adam(lr=0.1, **kw),
}
SPECIALS = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e-38, 3e38, -3e38])
SIZES = [(), (0,), (1,), (7,), (3, 5), (4097,), (blocked.BLOCK,), (blocked.BLOCK + 1,), (5, 40_001)]


def same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have the same bits; any NaN is as good as another."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    bits = f"u{a.itemsize}"
    return bool(np.all((a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))))


def normal(rng: Any, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape)


def slots_of(entry: Any) -> list[Any]:
    return [x for key, x in entry.items() if key != "t"] if isinstance(entry, dict) else [entry]


def compare(make: Any, shape: tuple[int, ...], dtype: str, steps: int, draw: Any, *, layout: Any = np.asarray) -> None:
    """Walk with both engines, new arrays and in place, and demand the same bits at each step."""
    eager, fused, inplace = make(), make(), make()
    rng = np.random.default_rng(11)
    start = np.asarray(draw(rng, shape), dtype=dtype)
    p, q, r = (layout(start.copy()) for _ in range(3))
    for _ in range(steps):
        g = layout(np.asarray(draw(rng, shape), dtype=dtype))
        with xpopt.engine("eager"):
            p = eager.update(p, g, "W")
        with xpopt.engine("blocked"):
            q = fused.update(q, g, "W")
            assert inplace.update(r, g, "W", out=r) is r
        for one, x in ((fused, q), (inplace, r)):
            assert same_bits(p, x)
            if "W" in eager.cache:
                pairs = zip(slots_of(eager.cache["W"]), slots_of(one.cache["W"]), strict=True)
                assert all(same_bits(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKE)
def test_bits_are_eager_numpys_over_sizes(backend, name, dtype):
    for shape in SIZES:
        compare(MAKE[name], shape, dtype, 3, normal)


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("name", MAKE)
def test_bits_are_eager_numpys_over_50_steps(backend, name, clip_norm):
    compare(lambda: MAKE[name](clip_norm=clip_norm), (1001,), "float32", 50, normal)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAKE)
def test_bits_are_eager_numpys_for_special_values(backend, name, dtype):
    compare(MAKE[name], (999,), dtype, 3, lambda rng, shape: rng.choice(SPECIALS, shape))


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: x[::-1]])
def test_any_layout_is_right(backend, layout):
    for shape in ((6, 5), (300, 400)):
        compare(MAKE["Adam"], shape, "float32", 3, normal, layout=layout)


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


class Two(NamedTuple):
    """Two slots."""

    fast: Any
    slow: Any


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
    "where reads its target last": lambda xp, p, g, s, h: (
        xp.where(g > 0, p, g),
        Two(xp.where(g > 0, s.fast, s.slow), xp.where(s.fast > 0, s.slow, s.fast)),
    ),
    "every function": every_function,
    "a negative number to a power": lambda xp, p, g, s, h: (p + (-1) ** h.t * g, Two(s.fast - -2 * g, s.slow)),
    "a number that may be missing": lambda xp, p, g, s, h: (p - getattr(h, "wd", 0.5) * g, s),
}


def of_rule(rule: Any, slots: Any = Two) -> Any:
    class Own(xpopt.OptimizerBase):
        def __init__(self, lr: float = 0.1, **kwargs: Any) -> None:
            super().__init__(lr, **kwargs)

    Own.rule, Own.slots = staticmethod(rule), slots
    return Own


@pytest.mark.parametrize("rule", REWIRED.values(), ids=REWIRED)
def test_own_rules_have_the_same_bits(backend, rule):
    for draw in (normal, lambda rng, shape: rng.choice(SPECIALS, shape)):
        compare(of_rule(rule), (53,), "float32", 4, draw)


def test_slots_may_be_called_anything(backend):
    Odd = NamedTuple("Odd", [(name, Any) for name in ("grad", "param", "multiply", "c0", "x0", "new_param", "copyto")])

    def rule(xp, param, grad, s, h):
        new = Odd(*(0.5 * slot + grad for slot in s))
        return param - h.lr * new.multiply - s.grad, new

    compare(of_rule(rule, Odd), (11,), "float64", 3, normal)


def test_the_callers_arrays_in_the_cache_are_not_written(backend):
    opt = xpopt.AdaGrad()
    mine = np.ones(3)
    opt.cache["W"] = mine
    opt.update(np.ones(3), np.ones(3), "W")
    assert mine.tolist() == [1.0, 1.0, 1.0]
    assert opt.cache["W"].tolist() == [2.0, 2.0, 2.0]


def test_a_copys_arrays_are_not_written(backend):
    opt = xpopt.AdaGrad()
    W = np.ones(3)
    opt.update(W, W, "W")
    twin = opt.copy()
    opt.update(W, W, "W")
    assert twin.cache["W"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("whole", [False, True])
def test_results_that_go_where_others_are_read_are_right(backend, whole):
    """`out` shifted against the parameter, over the gradient, or over another name's parameter."""
    want = xpopt.SGD(lr=1.0, momentum=0.5)
    opt = want.copy()
    memory = np.arange(9.0)
    p, g, out = memory[:8], np.linspace(1, 2, 8), memory[1:]
    expected = want.update(p.copy(), g, "W")
    if whole:
        opt.update_all({"W": p}, {"W": g}, out={"W": out})
    else:
        opt.update(p, g, "W", out=out)
    assert out.tolist() == expected.tolist()
    a, b = np.ones(4), np.full(4, 2.0)
    opt.update_all({"a": a, "b": b}, {"a": np.ones(4), "b": np.ones(4)}, out={"a": b, "b": a})
    assert b.tolist() == [0.0] * 4
    assert a.tolist() == [1.0] * 4


@pytest.mark.parametrize("whole", [False, True])
def test_a_number_that_fails_comes_before_anything_is_written(backend, whole):
    class Own(xpopt.OptimizerBase):
        slots = Two

        def __init__(self, lr: float = 0.1) -> None:
            super().__init__(lr)

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.lr / (h.t - 2) * grad, Two(s.fast + 1, s.slow - 1)

    opt = Own()
    W, g = np.ones(3), np.ones(3)
    opt.update_all({"W": W}, {"W": g}, out={"W": W})
    before = W.copy(), opt.cache["W"]["fast"].copy()
    with pytest.raises(ZeroDivisionError):
        opt.update_all({"W": W}, {"W": g}, out={"W": W}) if whole else opt.update(W, g, "W", out=W)
    assert (before[0] == W).all()
    assert (opt.cache["W"]["fast"] == before[1]).all()
    assert (opt.cache["W"]["t"], opt.cur_step) == (1, 1)


def test_numbers_beyond_float32_are_infinite_as_in_numpy(backend):
    compare(lambda: xpopt.SGD(lr=1e300), (5,), "float32", 2, lambda rng, shape: np.ones(shape))


def test_what_cannot_be_traced_warns_once_and_runs(backend):
    def rule(xp, param, grad, s, h):
        return (param - grad, s) if h.t < 3 else (param, s)

    opt = of_rule(rule, xpopt._rule.NoSlots)()
    W = np.ones(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            W = opt.update(W, np.ones(2), "W")
    assert re.search(r"rule cannot be traced \(line .*runs eagerly", str(caught[0].message))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert W.tolist() == [-1.0, -1.0]


def test_threads_work_in_arrays_of_their_own(backend):
    rng = np.random.default_rng(5)
    jobs = [(rng.standard_normal(100_003), rng.standard_normal(100_003)) for _ in range(4)]
    want = [xpopt.Adam().update(p, g, "W") for p, g in jobs]
    got: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            got[i] = xpopt.Adam().update(*jobs[i], "W")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(a, b) for a, b in zip(want, got, strict=True))


def test_an_engine_that_is_none_is_an_error(backend):
    with pytest.raises(ValueError, match=r"engine 'gpu'; wanted one of auto, eager, blocked"), xpopt.engine("gpu"):
        pass


def test_the_printed_kernel_reads_as_the_rule(backend):
    assert (
        print_numpy(trace(Rule(xpopt.AdaGrad.rule, xpopt.AdaGrad.slots))).text
        == '''\
def kernel(param, grad, total, new_param, new_total, x0, x1, c0, c1):
    """AdaGrad.rule, as calls of NumPy's ufuncs."""
    # c0 = h.lr
    # c1 = h.eps
    multiply(c0, grad, x0)
    multiply(grad, grad, x1)
    add(total, x1, new_total)
    sqrt(new_total, x1)
    add(x1, c1, x1)
    divide(x0, x1, x1)
    subtract(param, x1, new_param)
'''
    )


def test_no_warning_of_numpy_escapes(backend):
    x = np.tile(SPECIALS, 5)
    opt = xpopt.Adam()
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        for _ in range(2):
            new = opt.update(x, x[::-1].copy(), "W")
    assert np.isnan(new).any()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[:], lambda x: x.reshape(2, 2).T.reshape(-1)])
def test_a_slot_may_be_a_gradient_or_parameter(backend, whole, view):
    """It would be written in place while it is still read."""
    results = []
    for engine in ("eager", "auto"):
        opt = xpopt.SGD(lr=0.5, momentum=0.5)
        W = np.arange(4.0)
        with xpopt.engine(engine):
            for _ in range(2):
                opt.update(W, W, "W")
            slot = view(opt.cache["W"])
            if whole:
                new = list(opt.update_all({"W": slot, "b": W}, {"W": slot, "b": slot}).values())
            else:
                new = [opt.update(slot, slot, "W")]
        results.append([x.tolist() for x in (*new, opt.cache["W"])])
    assert results[0] == results[1]


def test_slots_that_a_caller_spoils_are_refused_or_replaced(backend):
    opt = xpopt.AdaGrad(lr=0.5)
    W = np.ones(4)
    for _ in range(2):
        opt.update(W, W, "W")
    opt.cache["W"].flags.writeable = False
    opt.update(W, W, "W")
    assert opt.cache["W"].tolist() == [3.0] * 4
    opt.cache["W"].resize((1,), refcheck=False)
    with pytest.raises(ValueError, match=r"'total' as numpy float64 of shape \(1,\)"):
        opt.update(W, W, "W")


def test_a_number_that_is_not_real_comes_before_anything_is_written(backend):
    def rule(xp, param, grad, s, h):
        return param - (h.lr - 1) ** 0.5 * grad, s

    opt, W = of_rule(rule, xpopt._rule.NoSlots)(), np.ones(2)
    with pytest.raises(TypeError, match="complex"):
        opt.update(W, W, "W", out=W)
    assert (W.tolist(), opt.cache) == ([1.0, 1.0], {})


def test_numpys_scalars_out_of_scalars_promote_nothing(backend):
    class Own(xpopt.OptimizerBase):
        @staticmethod
        def scalars(h):
            return {"rate": np.sqrt(h.lr)}

        @staticmethod
        def rule(xp, param, grad, s, h):
            return param - h.rate * grad, s

    compare(lambda: Own(0.25), (5,), "float32", 2, normal)


def test_a_deleted_entry_is_let_go(backend):
    opt = xpopt.AdaGrad()
    params = {"a": np.ones(3), "b": np.ones(3)}
    opt.update_all(params, params)
    slot = weakref.ref(opt.cache["a"])
    del opt.cache["a"]
    opt.update_all({"b": params["b"]}, {"b": params["b"]})
    assert slot() is None
