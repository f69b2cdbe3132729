"""What is true of the compiled engine alone: how near its functions are, what it prints, when it compiles."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np
import pytest
from _kit.bits import cast, compare, normal
from _kit.engines import MAKE, Two, forget_what_was_made, needs_llvmlite, of_rule

import xpopt
from xpopt._engine.compiled import break_even, build, fields
from xpopt._engine.compiled import group as kept_compiled
from xpopt._engine.compiled import kernel as compiled
from xpopt._graph.rule import NoSlots, Rule
from xpopt._graph.trace import trace
from xpopt._print.llvm import print_llvm

pytestmark = [pytest.mark.backends("numpy"), needs_llvmlite]


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
    for size, kernels in ((1000, 0), (break_even.WORTH - 1, 0), (break_even.WORTH, 1), (1000, 1)):
        with xpopt.engine("auto"):
            opt.update(np.ones(size), np.ones(size), size)
        assert [type(one) for of in made.values() for one in of.values()].count(compiled.Kernel) == kernels


@pytest.mark.parametrize("change", [{"ndim": 12}, {"flags": 52}, {"dtype": 56}, {"data": 40}])
def test_arrays_laid_out_otherwise_are_read_by_their_attributes(backend, monkeypatch, change):
    """As another release of NumPy might have them; told before any array of a caller's is read."""
    monkeypatch.setattr(fields, "OFFSETS", {**fields.OFFSETS, **change})
    assert kept_compiled._reader.__wrapped__() is None
    monkeypatch.setattr(kept_compiled, "_reader", lambda: None)
    with xpopt.engine("compiled"):
        compare(MAKE["Adam"], [(7,), (3, 5)], "float32", 3)


@pytest.mark.parametrize("head", [16, 24, 32])
def test_arrays_are_read_behind_heads_of_any_size(backend, head):
    """As another build of Python has them: copies of an array and a list behind such heads, which end in the type."""
    read = build.build(fields.source(head), "read_arrays", fields.PROTOTYPE)
    x, own = np.ones((2, 3)), object.__basicsize__
    behind = ctypes.string_at(id(x) + own, np.ndarray.__basicsize__ - own)
    for kind in (np.ndarray, list):
        array = ctypes.create_string_buffer(bytes(head - 8) + id(kind).to_bytes(8, sys.byteorder) + behind)
        items = np.array([ctypes.addressof(array)])
        fields_of_list = np.array([1, items.ctypes.data, 1])
        one = ctypes.create_string_buffer(bytes(head) + fields_of_list.tobytes())
        look, place = kept_compiled._Look([x], x.dtype, 2, in_place=True), ctypes.addressof(one)
        found = [read(place, place, place, look._address) for _ in range(2)]
        assert found == ([fields.MOVED, fields.SAME] if kind is np.ndarray else [0, 0])
    assert kept_compiled._reader() is not None


ADAGRAD = """\
; AdaGrad.rule on float32, computed in float32.

define internal void @elements(ptr noalias %param.first, ptr noalias %grad.first, ptr noalias %s_total.first, \
float %lr, float %eps, i64 %size) {
entry:
  br label %loop

loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %param.at = getelementptr float, ptr %param.first, i64 %i
  %param = load float, ptr %param.at
  %grad.at = getelementptr float, ptr %grad.first, i64 %i
  %grad = load float, ptr %grad.at
  %s_total.at = getelementptr float, ptr %s_total.first, i64 %i
  %s_total = load float, ptr %s_total.at
  %x0 = fmul float %lr, %grad
  %x1 = fmul float %grad, %grad
  %total = fadd float %s_total, %x1
  %x3 = call float @llvm.sqrt.f32(float %total)
  %x4 = fadd float %x3, %eps
  %x5 = fdiv float %x0, %x4
  %x6 = fsub float %param, %x5
  store float %x6, ptr %param.at
  store float %total, ptr %s_total.at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %size
  br i1 %more, label %loop, label %done

done:
  ret void
}
"""


def test_the_printed_kernel_reads_as_the_rule(backend):
    printed = print_llvm(trace(Rule(xpopt.AdaGrad.rule, xpopt.AdaGrad.slots)), "float32")
    assert printed.startswith(ADAGRAD)


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
