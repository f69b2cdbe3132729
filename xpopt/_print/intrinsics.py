"""What printed Numba kernels call: arrays at an address, the counter that threads share, and 16-bit floats.

Only printed kernels import this, for it needs Numba.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, register_jitable


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


@intrinsic
def take(typing: Any, counter: Any, share: Any) -> Any:
    """Return the element of an int64 array of one, and raise it by a share; no two threads get the same."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, args[1], "monotonic")

    return types.int64(counter, types.int64), build


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
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(args[0], word), word(16)), ir.FloatType())

    return types.float32(types.uint16), build


@intrinsic
def store_bfloat16(typing: Any, value: Any) -> Any:
    """Round to the nearest, ties to even; a NaN stays one, whichever of its bits are lost."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(builder.add(bits, word(0x7FFF)), odd)
        quiet = builder.or_(bits, word(0x400000))
        kept = builder.select(builder.fcmp_unordered("uno", args[0], args[0]), quiet, rounded)
        return builder.trunc(builder.lshr(kept, word(16)), ir.IntType(16))

    return types.uint16(types.float32), build
