"""Numbers of 16 bits in CUDA C: loaded, and stored by rounding to the nearest or stochastically."""

from __future__ import annotations

FLOAT16 = """
__device__ __forceinline__ float load_float16(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ unsigned short store_float16(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
"""

BFLOAT16 = """
__device__ __forceinline__ float load_bfloat16(unsigned short bits)
{
    return __uint_as_float((unsigned int)bits << 16);
}

// Round to the nearest, ties to even; a NaN stays one, whichever of its bits are lost.
__device__ __forceinline__ unsigned short store_bfloat16(float value)
{
    const unsigned int bits = __float_as_uint(value);
    const unsigned int rounded = bits + 0x7FFF + (bits >> 16 & 1);
    return (value != value ? bits | 0x400000 : rounded) >> 16;
}
"""

RANDOM = """
__device__ __forceinline__ unsigned int mixed(unsigned int bits)
{
    bits = (bits ^ bits >> 16) * 0x7FEB352D;
    bits = (bits ^ bits >> 15) * 0x846CA68B;
    return bits ^ bits >> 16;
}

// The key of a tensor: two integers, each of two halves that are numbers.
struct Key {
    unsigned int first, second;
};

__device__ __forceinline__ Key key_of(const float *halves)
{
    return {(unsigned int)halves[0] << 16 | (unsigned int)halves[1],
            (unsigned int)halves[2] << 16 | (unsigned int)halves[3]};
}

// Return the bits of a place in the tensor.
__device__ __forceinline__ unsigned int random_bits(long long place, const Key &key)
{
    return mixed(mixed((unsigned int)place ^ key.first) + key.second);
}

__device__ __forceinline__ bool is_finite(unsigned int bits)
{
    return (bits & 0x7F800000) != 0x7F800000;
}
"""

DRAW_FLOAT16 = """
// Round stochastically; below the normal numbers, to whole parts of 2^24.
__device__ __forceinline__ unsigned short draw_float16(float value, unsigned int random)
{
    const unsigned int bits = __float_as_uint(value), noise = random & 0x1FFF;
    const float chance = ((float)noise + 0.5f) * 0x1p-13f;
    const float small = floorf(fabsf(value) * 0x1p24f + chance) * 0x1p-24f;
    const float cut = __uint_as_float((bits + noise) & 0xFFFFE000);
    return store_float16(!is_finite(bits) ? value : fabsf(value) < 0x1p-14f ? copysignf(small, value) : cut);
}
"""

DRAW_BFLOAT16 = """
// Round stochastically; a NaN stays one, whichever of its bits are lost.
__device__ __forceinline__ unsigned short draw_bfloat16(float value, unsigned int random)
{
    const unsigned int bits = __float_as_uint(value);
    return is_finite(bits) ? (bits + (random & 0xFFFF)) >> 16 : store_bfloat16(value);
}
"""
