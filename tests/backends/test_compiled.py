"""What is true of the compiled engine alone: how near its functions are, what it prints, when it compiles."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, compare, normal
from _kit.engines import MAKE, Two, forget_what_was_made, needs_numba, of_rule

import xpopt
from xpopt._arrays.namespace import address_of
from xpopt._engine.compiled import build
from xpopt._engine.compiled import group as kept_compiled
from xpopt._engine.compiled import kernel as compiled
from xpopt._graph.rule import NoSlots, Rule
from xpopt._graph.trace import trace
from xpopt._print.numba import print_numba

pytestmark = [pytest.mark.backends("numpy"), needs_numba]


def steps_between(a: Any, b: Any) -> Any:
    """How many representable numbers lie between two arrays, element by element; any NaN is as good as another."""
    keys = []
    for x in (a, b):
        bits = x.view(f"i{x.itemsize}").astype(object if x.itemsize == 8 else np.int64)
        keys.append(np.where(bits < 0, np.iinfo(f"i{x.itemsize}").min - bits, bits))
    return np.where(np.isnan(a) & np.isnan(b), 0, abs(keys[0] - keys[1]))


def everywhere(rng: Any, dtype: str) -> Any:
    """Numbers of every size and sign, and around 1."""
    info = np.finfo(dtype)
    edges = [0.0, -0.0, 1, -1, 2, np.inf, -np.inf, np.nan, info.tiny, info.smallest_subnormal, info.max, -info.max]
    exponents = rng.uniform(info.minexp - 20, info.maxexp, 40_000)
    values = [rng.choice([-1, 1], 40_000) * 2**exponents, 1 + 1e-3 * normal(rng, (10_000,)), normal(rng, (10_000,))]
    return cast(np.concatenate([*values, edges]), dtype)


def exponents(rng: Any, dtype: str) -> Any:
    """Numbers whose exponentials are of every size."""
    largest = np.log(np.finfo(dtype).max)
    return cast(np.concatenate([rng.uniform(-1.2 * largest, 1.05 * largest, 50_000), normal(rng, (10_000,))]), dtype)


# Each function: what it is tried on, and how many steps its results may be away from NumPy's, in float32 and float64.
# NumPy's own error is up to 4 steps in float32 and 1 in float64, the other's up to 1; where these were set, the most
# that was seen is 2 for exp, 4 for log and 1 for powers in float32, and 1 in float64.
FUNCTIONS = {
    "exp": (lambda xp, p, g, s, h: (xp.exp(g), s), exponents, 5, 2),
    "log": (lambda xp, p, g, s, h: (xp.log(g), s), everywhere, 5, 2),
    "x**1.5": (lambda xp, p, g, s, h: (g**1.5, s), everywhere, 2, 2),
    "x**-0.5": (lambda xp, p, g, s, h: (g**-0.5, s), everywhere, 2, 2),
    "x**3": (lambda xp, p, g, s, h: (g**3, s), everywhere, 2, 2),
    "x**-1": (lambda xp, p, g, s, h: (g**-1, s), everywhere, 2, 2),
    "x**0": (lambda xp, p, g, s, h: (g**0, s), everywhere, 0, 0),
    "x**y": (lambda xp, p, g, s, h: (g**p, s), everywhere, 2, 2),
    "2**x": (lambda xp, p, g, s, h: (2**g, s), exponents, 2, 2),
    "lr**x": (lambda xp, p, g, s, h: (h.lr**g, s), exponents, 2, 2),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rule", "draw", "float32", "float64"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_are_near_numpys(backend, rule, draw, float32, float64, dtype):
    rng = np.random.default_rng(4)
    grad = draw(rng, dtype)
    param = cast(rng.uniform(-5, 5, grad.size), dtype)
    results = []
    for engine in ("eager", "compiled"):
        with xpopt.engine(engine):
            results.append(of_rule(rule, NoSlots)().update(param, grad, "W"))
    assert steps_between(*results).max() <= (float32 if dtype == "float32" else float64)


def test_powers_that_are_square_and_root_are_exact(backend):
    for rule in (lambda xp, p, g, s, h: (g**2, s), lambda xp, p, g, s, h: (g**0.5, s)):
        with xpopt.engine("compiled"):
            compare(of_rule(rule, NoSlots), [(60_012,)], "float32", 1, lambda rng, shape: everywhere(rng, "float32"))


def test_a_rule_of_every_function_follows_eager_numpy(backend):
    """Nothing in this one jumps where a function is a rounding away."""

    def rule(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
        fast = xp.where(grad > h.lr, s.fast * 0.5, xp.maximum(s.fast, -grad))
        slow = xp.clip(s.slow + abs(grad) ** 2, 0.0, 3.0) + xp.square(xp.minimum(fast, 1))
        odd = xp.isnan(grad) | ~xp.isfinite(grad) & (grad <= 0) ^ xp.isinf(slow)
        step = xp.where(odd, xp.sign(param), xp.sqrt(slow) ** 0.5 / (xp.exp(-slow) + xp.log(slow + 2)))
        return param - (h.lr**2 - 1) * step * slow**1.5, Two(fast, slow)

    rng = np.random.default_rng(1)
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
        start = cast(normal(rng, (5000,)), dtype)
        grads = [cast(normal(rng, (5000,)), dtype) for _ in range(10)]
        ends = []
        for engine in ("eager", "compiled"):
            opt, W = of_rule(rule)(), start
            with xpopt.engine(engine):
                for grad in grads:
                    W = opt.update_all([W], [grad])[0]
            ends.append(W)
        np.testing.assert_allclose(ends[1], ends[0], rtol=tolerance)


def test_the_second_step_compiles_nothing(backend, monkeypatch):
    opt, params = MAKE["Adam"](clip_norm=1), {"a": np.ones(3), "b": np.ones((2, 2), np.float32)}
    with xpopt.engine("compiled"):
        for _ in range(2):
            params = opt.update_all(params, params)
        monkeypatch.delattr(build, "build")
        for _ in range(2):
            params = opt.update_all(params, params)
            opt.update(params["a"], params["a"], "a")


def test_only_what_is_large_is_worth_a_compilation(backend, monkeypatch):
    made = forget_what_was_made(monkeypatch)
    opt = of_rule(lambda xp, p, g, s, h: (p - h.lr * g, s), NoSlots)()
    for size, kernels in ((1000, 0), (compiled.WORTH - 1, 0), (compiled.WORTH, 1), (1000, 1)):
        with xpopt.engine("auto"):
            opt.update(np.ones(size), np.ones(size), size)
        assert [type(one) for of in made.values() for one in of.values()].count(compiled.Kernel) == kernels


@pytest.mark.parametrize("change", [{"NDIM": 12}, {"FLAGS": 52}, {"DTYPE": 56}, {"DATA": 40}])
def test_arrays_laid_out_otherwise_are_read_by_their_attributes(backend, monkeypatch, change):
    """As another release of NumPy might have them; told before any array of a caller's is read."""
    source = build.source_of("fields")
    for name, offset in change.items():
        source += f"\n{name} = HEAD + {offset}\n"
    monkeypatch.setattr(build, "source_of", lambda module: source)
    assert kept_compiled._reader.__wrapped__() is None
    monkeypatch.setattr(kept_compiled, "_reader", lambda: None)
    with xpopt.engine("compiled"):
        compare(MAKE["Adam"], [(7,), (3, 5)], "float32", 3)


@pytest.mark.parametrize("head", [16, 24, 32])
def test_arrays_are_read_behind_heads_of_any_size(backend, head):
    """As another build of Python has them: a copy of an array object behind such a head, which ends in the type."""
    source = build.source_of("fields").replace("object.__basicsize__", str(head))
    read = build.build(source, "read_arrays", kept_compiled._SIGNATURE)
    x, own = np.ones((2, 3)), object.__basicsize__
    fields = ctypes.string_at(id(x) + own, np.ndarray.__basicsize__ - own)
    like = kept_compiled._look_of([x])
    for kind in (np.ndarray, list):
        copy = bytes(head - 8) + id(kind).to_bytes(8, sys.byteorder) + fields
        memory = ctypes.create_string_buffer(copy)
        pointers, table = np.array([ctypes.addressof(memory)]), np.zeros((1, 1), np.int64)
        seen = read(address_of(pointers), id(np.ndarray), id(x.dtype), *like, table)
        assert seen == (kind is np.ndarray)
    assert kept_compiled._reader() is not None


ADAGRAD = '''\
"""AdaGrad.rule on float32, computed in float32."""

from math import exp, isfinite, isinf, log, sqrt

from numba import float32

from xpopt._print.intrinsics import at, move, take


def kernel(table, pieces, counter, rows, numbers, factors):
    share = min(max(len(pieces) // 64, 1), 16)
    while True:
        first = take(counter, share)
        if first >= len(pieces):
            return
        for piece in range(first, min(first + share, len(pieces))):
            tensor, start, size = pieces[piece, 0], pieces[piece, 1], pieces[piece, 2]
            move(table[0, tensor], table[2, tensor], start, size, float32)
            at_param = at(table[2, tensor], start, size, float32)
            at_grad = at(table[1, tensor], start, size, float32)
            at_s_total = at(table[3, tensor], start, size, float32)
            row = rows[tensor]
            lr = numbers[row, 0]  # h.lr
            eps = numbers[row, 1]  # h.eps
            for i in range(size):
                param = at_param[i]
                grad = at_grad[i]
                s_total = at_s_total[i]
                total = s_total + (grad * grad)
                at_param[i] = param - ((lr * grad) / (sqrt(total) + eps))
                at_s_total[i] = total
'''


def test_the_printed_kernel_reads_as_the_rule(backend):
    assert print_numba(trace(Rule(xpopt.AdaGrad.rule, xpopt.AdaGrad.slots)), "float32") == ADAGRAD


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [lambda: xpopt.SGD(lr=0.1, clip_norm=1.0), lambda: of_rule(powers)(0.1)])
def test_what_was_compiled_before_changes_no_numbers(backend, monkeypatch, make, dtype):
    """A small update ends with the same bits in a process that has the kernel, and in one that has not."""
    forget_what_was_made(monkeypatch)
    rng = np.random.default_rng(0)
    small, large = (rng.standard_normal(n).astype(dtype) for n in (1000, 70_000))
    small, large = np.abs(small), np.abs(large)

    def walk(opt):
        params = {"a": small, "b": small[::-1].copy()}
        one = [opt.update(small, small / 3, "one") for _ in range(2)][-1]
        return [one, *opt.update_all(params, params).values()]

    with xpopt.engine("auto"):
        before = [x.tobytes() for x in walk(make())]
        opt = make()
        opt.update(large, large, "large")
        assert opt.explain({"large": large})[0].engine == "compiled"
        assert [x.tobytes() for x in walk(make())] == before


def powers(xp, param, grad, s, h):
    """A rule of functions that NumPy and LLVM have of their own."""
    return param - h.lr * xp.exp(-grad) * xp.log(1 + grad * grad), Two(s.fast, grad**1.5)
