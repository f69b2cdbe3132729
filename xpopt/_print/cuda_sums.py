"""What CUDA sources find whole tensors with, in the order of `sums`; ``$name`` is a place that the printer fills."""

from __future__ import annotations

SUMS = """
enum Join { ADD, MAXIMUM, MINIMUM };

__device__ __forceinline__ double infinity()
{
    return __uint_as_float(0x7F800000);
}

// Join two numbers; what is NaN stays so.
template <Join way>
__device__ __forceinline__ double join(double a, double b)
{
    return way == ADD ? a + b : a != a || (way == MAXIMUM ? a > b : a < b) ? a : b;
}

// Fold what the threads of the block hold in halves; the first thread gets the result.
template <Join way>
__device__ __forceinline__ double fold_block(double own)
{
    __shared__ double lanes[THREADS];
    __syncthreads();  // until nobody reads what was folded before
    lanes[threadIdx.x] = own;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            lanes[threadIdx.x] = join<way>(lanes[threadIdx.x], lanes[threadIdx.x + half]);
    }
    return lanes[0];
}

// Join numbers that lie `step` apart, PIECE of them at a time, and then what these come to; they are overwritten.
template <Join way>
__device__ __forceinline__ double total_of(double *sums, long long count, int step, double start)
{
    while (count > 1) {
        const long long pieces = (count + PIECE - 1) / PIECE;
        for (long long piece = 0; piece < pieces; ++piece) {
            const long long end = (piece + 1) * PIECE < count ? (piece + 1) * PIECE : count;
            double own = start;
            for (long long i = piece * PIECE + threadIdx.x; i < end; i += THREADS)
                own = join<way>(own, sums[i * step]);
            own = fold_block<way>(own);
            if (threadIdx.x == 0)
                sums[piece * step] = own;
        }
        __syncthreads();
        count = pieces;
    }
    return (count > 0 ? sums[0] : start) + 0.0;  // no zero is negative
}
"""

MEASURE = """
// Find $what. Thread i of a block takes the elements i, i + THREADS and so on.
extern "C" __global__ void __launch_bounds__(THREADS)
$kernel(const __grid_constant__ Table table, int tensors$takes, double *sums)
{
    const Piece piece = piece_of_block(table, tensors);
    const Tensor at = ((const Tensor *)table.bytes)[piece.tensor];
$each_tensor    for (long long i = piece.first + threadIdx.x; i < piece.last; i += THREADS) {
$each_element    }
$folded    if (threadIdx.x == 0) {
$kept    }
}
"""

REDUCED = """
// Find what the pieces of each tensor come to; here a block is a tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
$kernel(const __grid_constant__ Table table, double *sums$takes)
{
    const Tensor &at = ((const Tensor *)table.bytes)[blockIdx.x];
    const long long pieces = (at.size + PIECE - 1) / PIECE;
    sums += $ways * at.pieces_before;
$totals    if (threadIdx.x == 0) {
$kept    }
}
"""

OF_MODEL = """
// Find what all tensors come to; there is one block.
extern "C" __global__ void __launch_bounds__(THREADS)
$kernel(int tensors, double *totals$takes)
{
$totals    if (threadIdx.x == 0) {
$kept    }
}
"""

WIDE_NORM = """
// Find a norm from the squares of numbers, of these times 2^-600, and of these times 2^600.
__device__ __forceinline__ double norm_of(double squares, double of_large, double of_small)
{
    if (squares == infinity())
        return sqrt(of_large) * 0x1p600;
    return squares < 0x1p-900 ? sqrt(of_small) * 0x1p-600 : sqrt(squares);
}
"""

NARROW_FACTORS = """
// Find two numbers that bring the norm down to `clip_norm`: a power of two, where one number would be too small, and
// the rest. They are 1 where the norm is not above, and the second is NaN where it is not finite. The squares have been
// added up in double, where those of $dtype neither overflow nor vanish.
__device__ __forceinline__ void find_factors_of(double squares, double clip_norm, float *factors)
{
    const double norm = sqrt(squares);
    const double zero = norm - norm;
    const double ratio = norm > clip_norm ? clip_norm / norm : 1;
    const bool small = ratio < 0x1p-126;
    factors[0] = small ? 0x1p-126 : 1;
    factors[1] = zero != 0 ? zero : small ? ratio * 0x1p126 : ratio;
}
"""

WIDE_FACTORS = """
// Find two numbers that bring the norm down to `clip_norm`: a power of two, where one number would be too small, and
// the rest. They are 1 where the norm is not above, and the second is NaN where it is not finite. The squares are those
// of the numbers, of these times 2^-600, and of these times 2^600: one of the three neither overflows nor vanishes.
__device__ __forceinline__ void find_factors_of(
    double squares, double of_large, double of_small, double clip_norm, double *factors)
{
    double norm = sqrt(squares), scale = 1;  // the norm is norm / scale
    if (squares == infinity()) {
        norm = sqrt(of_large);
        scale = 0x1p-600;
    } else if (squares < 0x1p-900) {
        norm = sqrt(of_small);
        clip_norm *= 0x1p600;
    }
    const double zero = norm - norm;
    const double ratio = clip_norm / norm * scale;
    const double large = clip_norm * 0x1p511 / (norm * 0x1p-511) * scale;  // the ratio divided by 2^-1022
    const bool small = large < 1;
    factors[0] = small ? 0x1p-1022 : 1;
    factors[1] = zero != 0 ? zero : small ? large : ratio < 1 ? ratio : 1;
}
"""
