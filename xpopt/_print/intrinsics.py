"""What printed Numba kernels call: arrays at an address, the counter that threads share, and 16-bit floats.

Only printed kernels import this, for it needs Numba.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, register_jitable

_WORD = ir.IntType(32)


@intrinsic
def _pointer(typing: Any, address: Any, start: Any, dtype: Any) -> Any:
    """Return the pointer to element `start` of what lies at `address`."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.inttoptr(args[0], context.get_value_type(signature.return_type))
        return builder.gep(first, [args[1]])

    return types.CPointer(dtype.dtype)(address, start, dtype), build


@register_jitable
def at(address, start, size, dtype):  # type: ignore[no-untyped-def]
    return carray(_pointer(address, start, dtype), size)


@register_jitable
def move(source, target, start, size, dtype):  # type: ignore[no-untyped-def]
    if source != target:
        here, there = at(source, start, size, dtype), at(target, start, size, dtype)
        for i in range(size):
            there[i] = here[i]


@register_jitable
def fold_add(lanes):  # type: ignore[no-untyped-def]
    half = len(lanes) // 2
    while half > 0:
        for j in range(half):
            lanes[j] += lanes[half + j]
        half //= 2
    return lanes[0]


@register_jitable
def fold_maximum(lanes):  # type: ignore[no-untyped-def]
    largest = lanes[0]
    for x in lanes:
        if x > largest or x != x:
            largest = x
    return largest


@register_jitable
def fold_minimum(lanes):  # type: ignore[no-untyped-def]
    smallest = lanes[0]
    for x in lanes:
        if x < smallest or x != x:
            smallest = x
    return smallest


@intrinsic
def take(typing: Any, counter: Any, share: Any) -> Any:
    """Return the element of an int64 array of one, and raise it by a share; no two threads get the same."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, args[1], "monotonic")

    return types.int64(counter, types.int64), build


def _mixed(builder: Any, bits: Any) -> Any:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = builder.mul(builder.xor(bits, builder.lshr(bits, _WORD(shift))), _WORD(factor))
    return builder.xor(bits, builder.lshr(bits, _WORD(16)))


@intrinsic
def key(typing: Any, high: Any, low: Any) -> Any:
    """Return the integer of 32 bits of which two floats are the halves."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high, low = (builder.fptoui(arg, _WORD) for arg in args)
        return builder.or_(builder.shl(high, _WORD(16)), low)

    return types.uint32(types.float32, types.float32), build


@intrinsic
def random_bits(typing: Any, place: Any, first: Any, second: Any) -> Any:
    """Return the bits of a place, as `_engine.rounding` has them."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place, first, second = args
        bits = _mixed(builder, builder.xor(builder.trunc(place, _WORD), first))
        return _mixed(builder, builder.add(bits, second))

    return types.uint32(types.int64, types.uint32, types.uint32), build


def _is_finite(builder: Any, bits: Any) -> Any:
    exponent = _WORD(0x7F800000)
    return builder.icmp_unsigned("!=", builder.and_(bits, exponent), exponent)


@intrinsic
def draw_float16(typing: Any, value: Any, bits: Any) -> Any:
    """Round stochastically; below the normal numbers, to whole parts of 2**24."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, random = args
        single = ir.FloatType()
        bits, noise = builder.bitcast(value, _WORD), builder.and_(random, _WORD(0x1FFF))
        cut = builder.bitcast(builder.and_(builder.add(bits, noise), _WORD(0xFFFFE000)), single)
        chance = builder.fmul(builder.fadd(builder.uitofp(noise, single), single(0.5)), single(2.0**-13))
        floor = builder.module.declare_intrinsic("llvm.floor", [single])
        size = builder.bitcast(builder.and_(bits, _WORD(0x7FFFFFFF)), single)
        steps = builder.call(floor, [builder.fadd(builder.fmul(size, single(2.0**24)), chance)])
        sign = builder.and_(bits, _WORD(0x80000000))
        small = builder.bitcast(builder.fmul(steps, single(2.0**-24)), _WORD)
        small = builder.bitcast(builder.or_(small, sign), single)
        rounded = builder.select(builder.fcmp_ordered("<", size, single(2.0**-14)), small, cut)
        rounded = builder.select(_is_finite(builder, bits), rounded, value)
        return builder.bitcast(builder.fptrunc(rounded, ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32, types.uint32), build


@intrinsic
def draw_bfloat16(typing: Any, value: Any, bits: Any) -> Any:
    """Round stochastically; a NaN stays one, whichever of its bits are lost."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value, random = args
        bits = builder.bitcast(value, _WORD)
        rounded = builder.add(bits, builder.and_(random, _WORD(0xFFFF)))
        quiet = builder.select(builder.fcmp_unordered("uno", value, value), builder.or_(bits, _WORD(0x400000)), bits)
        kept = builder.select(_is_finite(builder, bits), rounded, quiet)
        return builder.trunc(builder.lshr(kept, _WORD(16)), ir.IntType(16))

    return types.uint16(types.float32, types.uint32), build


@intrinsic
def load_float16(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def store_float16(typing: Any, value: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), build


@intrinsic
def load_bfloat16(typing: Any, bits: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.shl(builder.zext(args[0], _WORD), _WORD(16)), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def store_bfloat16(typing: Any, value: Any) -> Any:
    """Round to the nearest, ties to even; a NaN stays one, whichever of its bits are lost."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], _WORD)
        odd = builder.and_(builder.lshr(bits, _WORD(16)), _WORD(1))
        rounded = builder.add(builder.add(bits, _WORD(0x7FFF)), odd)
        quiet = builder.or_(bits, _WORD(0x400000))
        kept = builder.select(builder.fcmp_unordered("uno", args[0], args[0]), quiet, rounded)
        return builder.trunc(builder.lshr(kept, _WORD(16)), ir.IntType(16))

    return types.uint16(types.float32), build
