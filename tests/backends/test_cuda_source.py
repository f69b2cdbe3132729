"""The CUDA source, without a device: compiled for devices by NVRTC, and run on the processor for its bits."""

from __future__ import annotations

import functools
import itertools
import math
import re
from fractions import Fraction
from typing import Any, NamedTuple

import array_api_compat.numpy as xnp
import cuda_on_cpu
import numpy as np
import nvrtc
import pytest
from _kit.bits import dtype_of, normal, same_bits
from _kit.engines import FEW, Two
from _kit.rules import NUMBERS, wild
from _kit.table import BY_RULE, SLOTTED

from xpopt._arrays.library import LOW
from xpopt._arrays.sums import PIECE
from xpopt._graph.rule import Rule
from xpopt._graph.trace import trace
from xpopt._print.cuda import OPTIONS, THREADS, print_cuda, print_finite
from xpopt._print.host import print_numbers
from xpopt._transforms.master import with_masters

on_cpu = [
    pytest.mark.backends("numpy"),
    pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="g++, which compiles for the processor, is missing"),
]
"""What needs g++ and NumPy."""

compiled = pytest.mark.backends("cupy")
"""What needs NVRTC, as CuPy does."""


Exact = NamedTuple(
    "Exact",
    [
        (name, Any)
        for name in ("largest", "smallest", "clipped", "sign", "size", "root", "square", "chosen", "quotient")
    ],
)


def exact(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Use every function whose result is rounded correctly, and keep what comes of each."""
    either = xp.isnan(grad) | ~xp.isfinite(grad) & (grad <= 0) ^ xp.isinf(s.root)
    other = xp.logical_or(grad >= h.edge, xp.logical_and(grad < s.size, grad != s.square))
    new = Exact(
        largest=xp.maximum(-param, grad),
        smallest=xp.minimum(-param, grad),
        clipped=xp.clip(grad, -h.edge, h.top) + xp.maximum(grad, -0.0),
        sign=xp.sign(grad),
        size=abs(grad),
        root=xp.sqrt(s.root) ** 0.5,
        square=xp.square(grad) - param**2,
        chosen=xp.where(either, param, xp.where(other, grad, h.edge)),
        quotient=(s.largest + 2) / (grad * (h.edge**2 - 1)),
    )
    return param - new.quotient + xp.where(new.size > s.size, new.root, 1.0), new


def swapped(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Write to each slot what the other held, and to the parameter its gradient."""
    return grad, Two(s.slow, s.fast)


def clashing(xp: Any, param: Any, grad: Any, s: Any, h: Any) -> Any:
    """Call values as CUDA C calls something else."""
    at = numbers = s.double + h.lr * grad
    i = signed = at * at + s.int
    sqrtf = width = xp.sqrt(i) - numbers
    return param - sqrtf / (width + signed), Clash(at, sqrtf)


class Clash(NamedTuple):
    double: Any
    int: Any


OPTIMIZERS = {label: row.rule() for label, row in BY_RULE.items() if not trace(row.rule()).reductions()}
"""Those that reduce no whole arrays, which takes more kernels: see `test_cuda_passes`."""
EACH_ALIKE = {label: rule for label, rule in OPTIMIZERS.items() if not rule.ones}
"""Those without a slot that is one number, which another kernel finds: see `test_cuda_engine`."""
EXACT = {**EACH_ALIKE, "exact": Rule(exact, Exact), "swapped": Rule(swapped, Two), "clashing": Rule(clashing, Clash)}
ALL = {**EXACT, "wild": Rule(wild, Two)}
KINDS = {name: OPTIMIZERS[name] for name in FEW}
"""Rules that differ in kind, for what is true of all."""
COPIED = {(name, dtype): rule for name, plain in KINDS.items() for dtype, rule in with_masters(plain).low.items()}
"""With master copies; a rule for each dtype."""

DTYPES = ("float16", "bfloat16", "float32", "float64")
SIZES = (0, 1, 7, 4097, 100_003)


_OTHERS = itertools.cycle(("float16", "bfloat16", "float64"))
LAUNCHED = [
    (name, dtype)
    for name in EXACT
    for dtype in (DTYPES if name in KINDS or name not in EACH_ALIKE else ("float32", next(_OTHERS)))
]
"""Rules that differ in kind in every dtype, and the others in float32 and in one that rotates."""


exact_rules = pytest.mark.parametrize(("name", "dtype"), LAUNCHED)
few_rules = pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
with_copies = pytest.mark.parametrize(
    ("dtype", "rule"), [(key[1], rule) for key, rule in COPIED.items()], ids=map(str, COPIED)
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


class Tensor(NamedTuple):
    """One tensor of a launch: what is read, where the new param goes, and its update count."""

    param: Any
    grad: Any
    slots: Any
    target: Any
    t: int


VALUE = 8000
"""Bytes of a table that travels with a launch."""


def source(rule: Rule, dtype: str, *, clipped: bool = False, by_value: bool = False) -> cuda_on_cpu.Source:
    """Return a rule's source, and the options that it is compiled with."""
    options = (*OPTIONS, f"-DTABLE_BYTES={VALUE}") if by_value else OPTIONS
    return print_cuda(trace(rule, clipped=clipped), dtype), options


@functools.cache
def build_all(dtype: str) -> None:
    """Compile all rules of a dtype at once, however many of them are launched."""
    names = [name for name, of in LAUNCHED if of == dtype] + (["wild"] if dtype not in LOW else [])
    cuda_on_cpu.build(
        [
            *(source(ALL[name], dtype) for name in names),
            *(source(rule, dtype, clipped=True) for rule in KINDS.values()),
            *(source(rule, dtype) for (_, low), rule in COPIED.items() if low == dtype),
            source(OPTIMIZERS["Adam"], dtype, by_value=True),
        ]
    )


class Kernels:
    """A printed source on the processor, and a table for it, written as its header says."""

    def __init__(self, rule: Rule, dtype: str, *, clipped: bool = False, by_value: bool = False) -> None:
        build_all(dtype)
        self.rule = rule
        self.compute = np.dtype("float64" if dtype == "float64" else "float32")
        self.graph = trace(rule, clipped=clipped)
        self.by_value = VALUE if by_value else 0
        module = cuda_on_cpu.module(*source(rule, dtype, clipped=clipped, by_value=by_value))
        self.update, self.sum_squares, self.find_factors = (
            module.get_function(name) if name == "update" or clipped else None
            for name in ("update", "sum_squares", "find_factors")
        )

    def table(self, tensors: list[Tensor], clip_norm: float | None) -> tuple[Any, int]:
        counts = sorted({tensor.t for tensor in tensors})
        numbers = print_numbers(self.graph)
        rows = np.array([numbers(self.rule.scalars_at(NUMBERS, 0.1, t)) for t in counts], self.compute)
        words: list[int] = []
        before = 0
        for param, grad, slots, target, t in tensors:
            words += [x.ctypes.data for x in (param, grad, target, *slots)]
            words += [param.size, before, counts.index(t)]
            before += -(-param.size // PIECE)
        table = np.array(words, np.int64).reshape(len(tensors), -1)
        ends = np.full((len(tensors), 0 if clip_norm is None else 1), clip_norm, np.float64).view(np.int64)
        table[:, -1] = table.nbytes + ends.nbytes + table[:, -1] * rows.itemsize * rows.shape[1]
        table = np.concatenate([table, ends], axis=1)
        return table.tobytes() + rows.tobytes(), before

    def run(self, tensors: list[Tensor], clip_norm: float | None = None) -> Any:
        """Update tensors as a launch does; return the factors, if the gradients are clipped."""
        table, pieces = self.table(tensors, clip_norm)
        if self.by_value:
            argument: Any = np.zeros(1, f"V{self.by_value}")
            argument.view(np.uint8)[: len(table)] = np.frombuffer(table, np.uint8)
        else:
            memory = np.frombuffer(table, np.uint8)
            argument = memory.ctypes.data
        shared = argument, np.int32(len(tensors))
        if clip_norm is None:
            self.update((pieces,), (THREADS,), shared)
            return None
        sums, factors = np.full((pieces, 3), np.nan), np.full((len(tensors), 2), np.nan, self.compute)
        self.sum_squares((pieces,), (THREADS,), (*shared, sums.ctypes.data))
        self.find_factors((len(tensors),), (THREADS,), (argument, sums.ctypes.data, factors.ctypes.data))
        self.update((pieces,), (THREADS,), (*shared, factors.ctypes.data))
        return factors


@np.errstate(all="ignore")
def eager(rule: Rule, tensor: Tensor, compute: Any, factors: Any = ()) -> tuple[Any, ...]:
    """Return the new param and slots as NumPy computes them."""
    param, grad = (x.astype(compute) for x in tensor[:2])
    for factor in factors:
        grad = grad * factor
    h = rule.scalars_at(NUMBERS, 0.1, tensor.t)
    new, slots = rule.function(xnp, param, grad, rule.make_slots([x.copy() for x in tensor.slots]), h)
    return new.astype(tensor.param.dtype), *slots


def special(rng: Any, size: int) -> Any:
    """Zeros of both signs, infinities, NaN, and the edges of every dtype."""
    values = [0.0, 1.0, math.inf, math.nan, 5e-324, 1e-310, 1e-45, 1e-40, 1e-38, 6e-8, 3e-8, 6e4, 65520, 3e38, 1e308]
    return rng.choice([*values, *(-x for x in values)], size)


def shifted(values: Any, dtype: Any, offset: int) -> Any:
    """Return the values in memory that begins `offset` elements after an address of 128 bits."""
    memory = np.empty(values.size + offset + 16, dtype)
    start = -memory.ctypes.data % 16 // memory.itemsize + offset
    memory[start : start + values.size] = values
    return memory[start : start + values.size]


def tensor(
    rule: Rule, dtype: Any, size: int, draw: Any, *, t: int = 3, offsets: Any = (0,), apart: bool = True
) -> Tensor:
    """Return a tensor; its arrays begin at `offsets` in turn, and its new param goes where the old is, or apart."""
    rng = np.random.default_rng(size + t)
    compute = np.dtype("float64" if dtype == "float64" else "float32")
    offset = itertools.cycle(offsets)
    with np.errstate(all="ignore"):
        param, grad = (shifted(draw(rng, size).astype(dtype), dtype, next(offset)) for _ in range(2))
        slots = [shifted(np.abs(draw(rng, size)).astype(compute), compute, next(offset)) for _ in rule.fields]
    return Tensor(param, grad, slots, shifted(np.zeros(size), dtype, next(offset)) if apart else param, t)


def check(kernels: Kernels, tensors: list[Tensor]) -> None:
    """Launch once, and demand the bits of NumPy."""
    want = [eager(kernels.rule, x, kernels.compute) for x in tensors]
    kernels.run(tensors)
    for x, (new, *slots) in zip(tensors, want, strict=True):
        assert same_bits(x.target, new)
        assert all(same_bits(a, b) for a, b in zip(x.slots, slots, strict=True))


class TestOnTheProcessor:
    pytestmark = on_cpu

    def test_conversions_stand_in_for_the_device(self):
        """All float16 there are, and float32 around and between them, go through a step of nothing."""
        kernels = Kernels(Rule(lambda xp, param, grad, s, h: (param + grad, s)), "float16")
        bits = np.arange(65536, dtype=np.uint16).view(np.float16)
        for grad in (0.0, 6e-8, 1e-3, 33.0):
            one = Tensor(bits, np.full(65536, grad, np.float16), [], np.empty_like(bits), 1)
            check(kernels, [one])

    @exact_rules
    def test_bits_are_numpys(self, name, dtype):
        rule = EXACT[name]
        kernels, dtype = Kernels(rule, dtype), dtype_of(dtype)
        for apart, draw in itertools.product((True, False), (normal, special)):
            check(kernels, [tensor(rule, dtype, size, draw, t=k, apart=apart) for k, size in enumerate(SIZES, 1)])

    @pytest.mark.parametrize("draw", [normal, special])
    @with_copies
    def test_bits_of_master_copies_are_numpys(self, rule, dtype, draw):
        """Where the parameter is what its copy rounds to, and where it is not."""
        kernels, dtype = Kernels(rule, dtype), dtype_of(dtype)
        tensors = [tensor(rule, dtype, size, draw, t=k) for k, size in enumerate(SIZES, 1)]
        for x in tensors:
            with np.errstate(all="ignore"):
                x.slots[-1][::2] = draw(np.random.default_rng(5), len(x.param[::2]))
                x.param[::2] = x.slots[-1][::2]
        check(kernels, tensors)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_copy_is_kept_where_its_parameter_is_what_it_rounds_to(self, dtype):
        """All numbers of 16 bits, and copies half a step from them, and a hair more and less."""
        rule = COPIED["SGD", dtype]
        kernels, bits = Kernels(rule, dtype), np.arange(65536, dtype=np.uint16)
        with np.errstate(all="ignore"):
            params = bits.view(dtype_of(dtype))
            after = (bits + 1).view(params.dtype).astype(np.float32)
            middles = (params.astype(np.float32) + after) / 2
            for masters in (middles, np.nextafter(middles, after), np.nextafter(middles, -after), after):
                slots = [masters.astype(np.float32)]
                check(kernels, [Tensor(params, np.zeros_like(params), slots, np.empty_like(params), 1)])

    @every_dtype
    @pytest.mark.parametrize("offsets", [(1,), (0, 1), (4, 0, 0), (0, 0, 0, 1), (3, 5, 7)])
    def test_bits_do_not_depend_on_addresses(self, dtype, offsets):
        rule, dtype_ = OPTIMIZERS["Adam"], dtype_of(dtype)
        kernels = Kernels(rule, dtype)
        for size in SIZES[:4]:
            check(kernels, [tensor(rule, dtype_, size, normal, offsets=offsets)])

    @every_dtype
    @few_rules
    def test_bits_after_50_steps(self, rule, dtype):
        kernels, dtype = Kernels(rule, dtype), dtype_of(dtype)
        one = tensor(rule, dtype, 1001, normal, apart=False)
        param, slots = one.param.copy(), [x.copy() for x in one.slots]
        for t in range(1, 51):
            one.grad[:] = np.random.default_rng(t).standard_normal(1001)
            param, *slots = eager(rule, Tensor(param, one.grad, slots, None, t), kernels.compute)
            kernels.run([one._replace(t=t)])
        assert same_bits(one.param, param)
        assert all(same_bits(a, b) for a, b in zip(one.slots, slots, strict=True))

    @pytest.mark.parametrize("by_value", [False, True])
    @every_dtype
    def test_each_tensor_has_its_numbers(self, dtype, by_value):
        """In a table by value as by address: tensors of many sizes, whose counts are few or all different."""
        rule, dtype_ = OPTIMIZERS["Adam"], dtype_of(dtype)
        kernels = Kernels(rule, dtype, by_value=by_value)
        for counts in ([5] * 40, [1, 2] * 20, range(1, 41)):
            check(kernels, [tensor(rule, dtype_, 211 * k % 9000, normal, t=t) for k, t in enumerate(counts)])

    def test_elements_beyond_32_bits(self):
        """The last piece of a tensor that would fill more memory than there is."""
        rule = OPTIMIZERS["SGD-momentum"]
        kernels = Kernels(rule, "float32")
        one = tensor(rule, np.dtype(np.float32), 4097, normal)
        table, pieces = kernels.table([one], None)
        words = np.frombuffer(table, np.int64).copy()
        before = 2**20  # pieces, of 2**32 elements
        words[:4] -= before * PIECE * 4
        words[4:6] = before * PIECE + 4097, -before
        new, velocity = eager(rule, one, kernels.compute)
        kernels.update((pieces,), (THREADS,), (words.ctypes.data, np.int32(1)))
        assert same_bits(one.target, new)
        assert same_bits(one.slots[0], velocity)

    def test_functions_of_the_device_library(self):
        """exp, log and other powers are as good as the compiler's library."""
        rule = ALL["wild"]
        for dtype, bound in (("float32", 8 * 2.0**-23), ("float64", 8 * 2.0**-52)):
            kernels, one = Kernels(rule, dtype), tensor(rule, dtype, 4097, normal)
            want = eager(rule, one, kernels.compute)
            kernels.run([one])
            for got, expected in zip((one.target, *one.slots), want, strict=True):
                np.testing.assert_allclose(got, expected, rtol=bound, atol=bound)

    @every_dtype
    @few_rules
    def test_clipped_bits_are_those_of_the_clipped_gradient(self, rule, dtype):
        kernels, dtype = Kernels(rule, dtype, clipped=True), dtype_of(dtype)
        tensors = [tensor(rule, dtype, size, normal, t=t) for t, size in enumerate(SIZES, 1)]
        before = [x._replace(slots=[slot.copy() for slot in x.slots]) for x in tensors]
        factors = kernels.run(tensors, 0.5)
        for old, x, both in zip(before, tensors, factors, strict=True):
            new, *slots = eager(rule, old, kernels.compute, both)
            assert same_bits(x.target, new)
            assert all(same_bits(a, b) for a, b in zip(x.slots, slots, strict=True))


def length(values: Any) -> Fraction:
    """The square of the L2 norm, in exact arithmetic."""
    return sum((Fraction(float(x)) ** 2 for x in values), Fraction(0))


def factor_of(square: Fraction, clip_norm: float) -> Fraction:
    """The factor: the square root of an exact quotient, to twice the digits of float64."""
    if square <= Fraction(clip_norm) ** 2:
        return Fraction(1)
    ratio = Fraction(clip_norm) ** 2 / square
    shift = 2 * max(0, 120 - (ratio.numerator.bit_length() - ratio.denominator.bit_length()))
    root = math.isqrt((ratio.numerator << shift) // ratio.denominator)
    return Fraction(root, 1 << shift // 2)


def off(factors: Any, square: Fraction, clip_norm: float) -> float:
    """How far the product of two factors is from what it should be, in parts of that."""
    scale, factor = (Fraction(float(x)) for x in factors)
    return float(abs(scale * factor / factor_of(square, clip_norm) - 1))


SCALES = {"float16": (1e-4, 1.0, 1e4), "bfloat16": (1e-30, 1.0, 1e30), "float32": (1e-30, 1.0, 1e37)}
SCALES["float64"] = (1e-320, 1e-300, 1e-145, 1e-144, 1.0, 1e144, 1e145, 1e300, 1e308)


class TestClipping:
    pytestmark = on_cpu

    @functools.cached_property
    def rule(self):
        return OPTIMIZERS["SGD"]

    @every_dtype
    def test_factors_of_any_scale(self, dtype):
        kernels, kind = Kernels(self.rule, dtype, clipped=True), dtype_of(dtype)
        ulp = 2.0**-52 if dtype == "float64" else 2.0**-23
        for scale in SCALES[dtype]:

            def draw(rng, size, scale=scale):
                return rng.uniform(-1, 1, size) * scale

            tensors = [tensor(self.rule, kind, size, draw) for size in SIZES[1:4]]
            squares = [length(x.grad) for x in tensors]
            for clip_norm in (scale / 1000, scale, 1.0, scale * 1000, 1e-36, 1e-300):
                if clip_norm == 0 or not math.isfinite(clip_norm):
                    continue
                for square, factors in zip(squares, kernels.run(tensors, clip_norm), strict=True):
                    beyond = factor_of(square, clip_norm) < Fraction(float(np.finfo(kernels.compute).tiny)) ** 2
                    assert beyond or off(factors, square, clip_norm) <= 8 * ulp

    def test_numbers_of_all_sizes_at_once(self):
        """Each of the three sums matters beside its neighbour."""
        kernels = Kernels(self.rule, "float64", clipped=True)
        for centre in (-480, 480):
            edge = np.ldexp(np.linspace(0.5, 2.0, 999), centre)
            one = Tensor(np.zeros(999), edge, [], np.zeros(999), 1)
            (factors,) = kernels.run([one], float(np.ldexp(1.0, centre)))
            assert off(factors, length(edge), float(np.ldexp(1.0, centre))) < 1e-15
        for size, clip_norm in ((490, 1.3 * 2.0**-430), (490, 1e-300), (-500, 2.0**-1070), (1023, 2.0**-1000)):
            one = Tensor(np.zeros(9), np.ldexp(np.linspace(0.5, 1, 9), size), [], np.zeros(9), 1)
            (factors,) = kernels.run([one], clip_norm)
            assert off(factors, length(one.grad), clip_norm) < 1e-15
        wide = np.ldexp(1.0, np.arange(-1074, 1023))
        (factors,) = kernels.run([Tensor(wide, wide, [], wide.copy(), 1)], 1.0)
        assert off(factors, length(wide), 1.0) < 1e-15

    @every_dtype
    def test_what_is_not_finite_shows(self, dtype):
        kernels, kind = Kernels(self.rule, dtype, clipped=True), dtype_of(dtype)
        tensors = [tensor(self.rule, kind, 5000, normal) for _ in range(4)]
        for x, bad in zip(tensors, (math.inf, -math.inf, math.nan), strict=False):
            x.grad[4500] = bad
        factors = kernels.run(tensors, 1.0)
        assert np.isnan(factors[:, 1]).tolist() == [True, True, True, False]

    def test_a_huge_number_hides_no_nan(self):
        kernels = Kernels(self.rule, "float64", clipped=True)
        for values in ([math.nan, 1e200], [1e-200, math.nan], [1e200, math.inf, 1e-200]):
            one = Tensor(np.zeros(len(values)), np.array(values), [], np.zeros(len(values)), 1)
            assert np.isnan(kernels.run([one], 1.0)[:, 1]).all()

    @every_dtype
    def test_the_factor_is_one_up_to_the_bound(self, dtype):
        kernels, kind = Kernels(self.rule, dtype, clipped=True), dtype_of(dtype)
        for values, factor in (([3.0, 4.0], 1.0), ([0.0, -0.0], 1.0), ([], 1.0), ([6.0, 8.0], 0.5)):
            one = Tensor(*(np.array(values, kind) for _ in range(2)), [], np.zeros(len(values), kind), 1)
            assert kernels.run([one], 5.0).tolist() == [[1.0, factor]]

    def test_the_norm_does_not_depend_on_the_company(self):
        """Nor on the address: the same sum in the same order."""
        kernels = Kernels(self.rule, "float32", clipped=True)
        alone = tensor(self.rule, np.float32, 100_003, normal)
        ((_, want),) = kernels.run([alone], 0.1)
        moved = alone._replace(grad=shifted(alone.grad, np.float32, 1))
        others = [tensor(self.rule, np.float32, size, normal) for size in SIZES]
        assert kernels.run([*others, moved, *others], 0.1)[len(others), 1] == want


@compiled
def test_32_kilobytes_can_travel_with_a_launch():
    source = print_cuda(trace(OPTIMIZERS["Adam"], clipped=True))
    assert "[32640]" in nvrtc.ptx(source, (*OPTIONS, "-DTABLE_BYTES=32640"), "sm_90")


def arithmetic(text: str) -> set[str]:
    """The instructions of a PTX that compute floats, each with its rounding."""
    found = re.findall(r"^\s*(?:@\S+\s+)?([a-z]\w*)((?:\.\w+)*)\.f(?:32|64)\s", text, re.MULTILINE)
    moving = {"ld", "st", "mov", "selp", "setp", "cvt", "neg", "abs", "copysign", "testp"}
    return {op + modifiers.replace(".ftz", "") for op, modifiers in found if op not in moving}


ROUNDED = {"add", "add.rn", "sub", "sub.rn", "mul", "mul.rn", "div.rn", "sqrt.rn"}


def assert_it_compiles(name: str, rule: Rule, dtype: str, options: tuple[str, ...], arch: str) -> None:
    """Without a header: by value as it is, and by address with all that is added. Nothing is contracted."""
    plain = nvrtc.ptx(print_cuda(trace(rule), dtype), (*options, f"-DTABLE_BYTES={VALUE}"), arch)
    full = print_cuda(trace(rule, clipped=True), dtype, guarded=True, drawn=dtype in LOW)
    clipped = nvrtc.ptx(full, options, arch)
    for text in (plain, clipped):
        assert ".entry update" in text
        assert (".entry find_ones" in text) == bool(rule.ones)
    if name in EXACT:
        assert arithmetic(plain) <= ROUNDED
        assert arithmetic(clipped) <= {*ROUNDED, "min"}  # a factor is at most 1


@compiled
@every_dtype
@pytest.mark.parametrize("row", SLOTTED, ids=str)
def test_it_compiles_with_numbers_of_each_tensor(row, dtype):
    assert_it_compiles(row.label, row.rule(), dtype, OPTIONS, "sm_80")


@compiled
@pytest.mark.parametrize(("dtype", "kept"), [("float32", "bfloat16"), ("bfloat16", "float16"), ("float64", "float32")])
def test_it_compiles_with_narrower_slots(dtype, kept):
    source = print_cuda(trace(OPTIMIZERS["Adam"]), dtype, kept=[kept, kept])
    assert ".entry update" in nvrtc.ptx(source, OPTIONS, "sm_80")


@compiled
@pytest.mark.parametrize(("name", "dtype"), [*LAUNCHED, *(("wild", dtype) for dtype in DTYPES)])
def test_it_compiles_and_every_operation_is_rounded_by_itself(name, dtype):
    assert_it_compiles(name, ALL[name], dtype, OPTIONS, "sm_80")


@compiled
@every_dtype
@pytest.mark.parametrize("name", ["SGD-momentum", "Adam", "exact"])
def test_so_it_does_for_a_newer_device_with_what_cupy_adds(name, dtype):
    """It flushes subnormals."""
    assert_it_compiles(name, ALL[name], dtype, (*OPTIONS, "-ftz=true"), "sm_90")


@compiled
@with_copies
def test_master_copies_compile_and_every_operation_is_rounded_by_itself(rule, dtype):
    text = nvrtc.ptx(print_cuda(trace(rule), dtype), OPTIONS, "sm_80")
    assert ".entry update" in text
    assert ".local" not in text
    assert arithmetic(text) <= ROUNDED


@compiled
@every_dtype
def test_the_check_compiles_without_a_header(dtype):
    for options in (OPTIONS, (*OPTIONS, f"-DTABLE_BYTES={VALUE}")):
        assert ".entry check_finite" in nvrtc.ptx(print_finite(dtype), options, "sm_80")


@compiled
def test_a_contraction_would_show():
    source = print_cuda(trace(OPTIMIZERS["Adam"]))
    assert "fma.rn" in arithmetic(nvrtc.ptx(source, (), "sm_90"))


@compiled
@pytest.mark.parametrize(
    ("dtype", "vector"), [("float16", "v4.u16"), ("bfloat16", "v4.u16"), ("float32", "v4.f32"), ("float64", "v2.f64")]
)
def test_vectors_are_loaded_and_stored(dtype, vector):
    text = nvrtc.ptx(print_cuda(trace(OPTIMIZERS["Adam"]), dtype), OPTIONS, "sm_90")
    slots = "v2.f64" if dtype == "float64" else "v4.f32"
    for access in (f"ld.{vector}", f"st.{vector}", f"ld.{slots}", f"st.{slots}"):
        assert access in text
    assert ".local" not in text
