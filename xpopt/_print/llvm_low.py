"""Functions of 16-bit dtypes and of stochastic rounding in LLVM's assembly, which printed kernels call."""

from __future__ import annotations

LOW = {
    "load_bfloat16": """\
define internal float @load_bfloat16(i16 %bits) alwaysinline {
  %word = zext i16 %bits to i32
  %high = shl i32 %word, 16
  %value = bitcast i32 %high to float
  ret float %value
}
""",
    "store_bfloat16": """\
; round to the nearest, ties to even; a NaN stays one, whichever of its bits are lost
define internal i16 @store_bfloat16(float %value) alwaysinline {
  %bits = bitcast float %value to i32
  %shifted = lshr i32 %bits, 16
  %odd = and i32 %shifted, 1
  %half = add i32 %bits, u0x7FFF
  %rounded = add i32 %half, %odd
  %quiet = or i32 %bits, u0x400000
  %none = fcmp uno float %value, %value
  %kept = select i1 %none, i32 %quiet, i32 %rounded
  %high = lshr i32 %kept, 16
  %result = trunc i32 %high to i16
  ret i16 %result
}
""",
    "is_finite": """\
define internal i1 @is_finite(i32 %bits) alwaysinline {
  %exponent = and i32 %bits, u0x7F800000
  %result = icmp ne i32 %exponent, u0x7F800000
  ret i1 %result
}
""",
    "draw_float16": """\
; round stochastically; below the normal numbers, to whole parts of 2**24
define internal half @draw_float16(float %value, i32 %random) alwaysinline {
  %bits = bitcast float %value to i32
  %noise = and i32 %random, u0x1FFF
  %raised = add i32 %bits, %noise
  %cut_bits = and i32 %raised, u0xFFFFE000
  %cut = bitcast i32 %cut_bits to float
  %count = uitofp i32 %noise to float
  %middle = fadd float %count, 5.000000e-01
  %chance = fmul float %middle, 0x3F20000000000000
  %size_bits = and i32 %bits, u0x7FFFFFFF
  %size = bitcast i32 %size_bits to float
  %scaled = fmul float %size, 0x4170000000000000
  %lifted = fadd float %scaled, %chance
  %steps = call float @llvm.floor.f32(float %lifted)
  %sign = and i32 %bits, u0x80000000
  %unsigned = fmul float %steps, 0x3E70000000000000
  %unsigned_bits = bitcast float %unsigned to i32
  %small_bits = or i32 %unsigned_bits, %sign
  %small = bitcast i32 %small_bits to float
  %below = fcmp olt float %size, 0x3F10000000000000
  %drawn = select i1 %below, float %small, float %cut
  %finite = call i1 @is_finite(i32 %bits)
  %rounded = select i1 %finite, float %drawn, float %value
  %result = fptrunc float %rounded to half
  ret half %result
}
""",
    "draw_bfloat16": """\
; round stochastically; a NaN stays one, whichever of its bits are lost
define internal i16 @draw_bfloat16(float %value, i32 %random) alwaysinline {
  %bits = bitcast float %value to i32
  %noise = and i32 %random, u0xFFFF
  %rounded = add i32 %bits, %noise
  %marked = or i32 %bits, u0x400000
  %none = fcmp uno float %value, %value
  %quiet = select i1 %none, i32 %marked, i32 %bits
  %finite = call i1 @is_finite(i32 %bits)
  %kept = select i1 %finite, i32 %rounded, i32 %quiet
  %high = lshr i32 %kept, 16
  %result = trunc i32 %high to i16
  ret i16 %result
}
""",
    "key": """\
; the integer of 32 bits of which two floats are the halves
define internal i32 @key(float %high, float %low) alwaysinline {
  %upper = fptoui float %high to i32
  %lower = fptoui float %low to i32
  %shifted = shl i32 %upper, 16
  %result = or i32 %shifted, %lower
  ret i32 %result
}
""",
    "mixed": """\
define internal i32 @mixed(i32 %bits) alwaysinline {
  %a = lshr i32 %bits, 16
  %b = xor i32 %bits, %a
  %c = mul i32 %b, u0x7FEB352D
  %d = lshr i32 %c, 15
  %e = xor i32 %c, %d
  %f = mul i32 %e, u0x846CA68B
  %g = lshr i32 %f, 16
  %result = xor i32 %f, %g
  ret i32 %result
}
""",
    "random_bits": """\
; the bits of a place, as everywhere
define internal i32 @random_bits(i64 %place, i32 %first, i32 %second) alwaysinline {
  %low = trunc i64 %place to i32
  %begun = xor i32 %low, %first
  %half = call i32 @mixed(i32 %begun)
  %more = add i32 %half, %second
  %result = call i32 @mixed(i32 %more)
  ret i32 %result
}
""",
}
