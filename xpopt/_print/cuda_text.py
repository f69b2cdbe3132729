"""What every CUDA source has around the rule; ``$name`` is a place that the printer fills."""

from __future__ import annotations

HEAD = """\
// $title
//
// One launch takes many tensors. Each block takes one piece of one of them: PIECE elements, or what is left.

constexpr long long PIECE = $piece;
constexpr int THREADS = $threads;

struct Tensor {
$pointers
    long long size;
    long long pieces_before;
    long long bytes_before;  // in the table, before its numbers of the step
$bound};

// A Tensor for each, and then the numbers.
#ifdef TABLE_BYTES
struct alignas(8) Table { unsigned char bytes[TABLE_BYTES]; };  // travels with the launch
#else
struct Table { const unsigned char *bytes; };  // lies on the device
#endif

struct Piece {
    int tensor;
    long long first, last;  // its elements, of which the last is the next one's first
};

// Find the piece of this block: it is one of the last tensor before which no more pieces come than blocks.
__device__ __forceinline__ Piece piece_of_block(const Table &table, int tensors)
{
    const Tensor *all = (const Tensor *)table.bytes;
    int tensor = 0;
    for (int beyond = tensors; beyond - tensor > 1;) {
        const int middle = (tensor + beyond) / 2;
        if (all[middle].pieces_before <= blockIdx.x)
            tensor = middle;
        else
            beyond = middle;
    }
    const long long first = (blockIdx.x - all[tensor].pieces_before) * PIECE;
    const long long size = all[tensor].size;
    return {tensor, first, first + PIECE < size ? first + PIECE : size};
}
$conversions"""

FINITE = """
// Write false if an element of a gradient is NaN or larger than `largest`, and nothing if none is.
extern "C" __global__ void __launch_bounds__(THREADS)
check_finite(const __grid_constant__ Table table, int tensors, $number largest, bool *finite)
{
    const Piece piece = piece_of_block(table, tensors);
    const $stored *elements = ((const Tensor *)table.bytes)[piece.tensor].grad;
    for (long long i = piece.first + threadIdx.x; i < piece.last; i += THREADS) {
        const $number x = $element;
        if (!(x <= largest && -x <= largest))
            *finite = false;
    }
}
"""

GUARD = """\
    if (!*proceed) {  // nothing is to change
        for (long long i = piece.first + threadIdx.x; at.target != at.$param && i < piece.last; i += THREADS)
            at.target[i] = at.$param[i];
        return;
    }
"""

ONES = """
// Find the numbers of each tensor that its update reads, and its new slots of one number; here a thread is a tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
find_ones(const __grid_constant__ Table table, int tensors, $number *ones$guard)
{
    const int tensor = blockIdx.x * THREADS + threadIdx.x;
    if (tensor >= tensors)
        return;
    const Tensor at = ((const Tensor *)table.bytes)[tensor];
    const $number *numbers = (const $number *)(table.bytes + at.bytes_before) + $numbers_before;
$each_one$keep_ones}
"""

UPDATE = """
constexpr int WIDTH = $width;  // elements of a vector: 128 bits of the widest arrays

template <typename Element, int width>
struct alignas(sizeof(Element) * width) Pack { Element of[width]; };

// Update the elements from `first` up to `last`, both multiples of `width`.
template <int width>
__device__ __forceinline__ void update_elements(
    const Tensor &at, const $number *numbers$one$factor, long long first, long long last)
{
    typedef Pack<$stored, width> Params;
$each_tensor
    for (long long i = first / width + threadIdx.x; i < last / width; i += THREADS) {
$loads
        #pragma unroll
        for (int k = 0; k < width; ++k) {
$each_element        }

$stores    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
update(const __grid_constant__ Table table, int tensors$ones$factors$guard)
{
    const Piece piece = piece_of_block(table, tensors);
    const Tensor at = ((const Tensor *)table.bytes)[piece.tensor];
$leave    const $number *numbers = (const $number *)(table.bytes + at.bytes_before);
    const unsigned long long all_bits = $addresses;
    const long long whole = all_bits % 16 == 0 ? piece.last - piece.last % WIDTH : piece.first;  // the end of vectors
    update_elements<WIDTH>(at, numbers$and_one$and_factor, piece.first, whole);
    update_elements<1>(at, numbers$and_one$and_factor, whole, piece.last);
}
"""

CLIP = """
// Add up what the threads of the block hold, always in the same order; the first thread gets the sum.
__device__ __forceinline__ Squares sum_of_block(const Squares &own)
{
    __shared__ Squares sums[THREADS];
    sums[threadIdx.x] = own;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            add(sums[threadIdx.x], sums[threadIdx.x + half]);
    }
    return sums[0];
}

// Sum up each piece of the gradients.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_squares(const __grid_constant__ Table table, int tensors, Squares *sums)
{
    const Piece piece = piece_of_block(table, tensors);
    const $stored *elements = ((const Tensor *)table.bytes)[piece.tensor].$grad;
    Squares own = {};
    for (long long i = piece.first + threadIdx.x; i < piece.last; i += THREADS)
        add(own, $element);
    own = sum_of_block(own);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = own;
}

// Find the two factors of each tensor from the sums of its pieces; here a block is a tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
find_factors(const __grid_constant__ Table table, const Squares *sums, $number *factors)
{
    const Tensor &at = ((const Tensor *)table.bytes)[blockIdx.x];
    const long long pieces = (at.size + PIECE - 1) / PIECE;
    Squares own = {};
    for (long long i = threadIdx.x; i < pieces; i += THREADS)
        add(own, sums[at.pieces_before + i]);
    own = sum_of_block(own);
    if (threadIdx.x == 0)
        find_factors_of(own, at.clip_norm, factors + 2 * blockIdx.x);
}
"""

NARROW_SQUARES = """
// A sum of squares. In double, those of $dtype neither overflow nor vanish.
struct Squares { double sum; };

__device__ __forceinline__ void add(Squares &squares, double x)
{
    squares.sum += x * x;
}

__device__ __forceinline__ void add(Squares &squares, const Squares &others)
{
    squares.sum += others.sum;
}

// Find two numbers that bring the norm down to `clip_norm`: a power of two, where one number would be too small, and
// the rest. They are 1 where the norm is not above, and the second is NaN where it is not finite.
__device__ __forceinline__ void find_factors_of(const Squares &squares, double clip_norm, float *factors)
{
    const double norm = sqrt(squares.sum);
    const double zero = norm - norm;
    const double ratio = norm > clip_norm ? clip_norm / norm : 1;
    const bool small = ratio < 0x1p-126;
    factors[0] = small ? 0x1p-126 : 1;
    factors[1] = zero != 0 ? zero : small ? ratio * 0x1p126 : ratio;
}
"""

WIDE_SQUARES = """
// A sum of squares, in three by the size of the numbers, so that none overflows or vanishes.
struct Squares {
    double small;  // of numbers below 2^-480, each times 2^600
    double medium;
    double large;  // of numbers above 2^480, each times 2^-600
};

__device__ __forceinline__ void add(Squares &squares, double x)
{
    x = fabs(x);
    if (x > 0x1p480)
        squares.large += x * 0x1p-600 * (x * 0x1p-600);
    else if (x < 0x1p-480)
        squares.small += x * 0x1p600 * (x * 0x1p600);
    else
        squares.medium += x * x;
}

__device__ __forceinline__ void add(Squares &squares, const Squares &others)
{
    squares.small += others.small;
    squares.medium += others.medium;
    squares.large += others.large;
}

// Find two numbers that bring the norm down to `clip_norm`: a power of two, where one number would be too small, and
// the rest. They are 1 where the norm is not above, and the second is NaN where it is not finite.
__device__ __forceinline__ void find_factors_of(const Squares &squares, double clip_norm, double *factors)
{
    double norm, scale = 1;  // the norm is norm / scale
    if (squares.large > 0) {
        norm = sqrt(squares.large + squares.medium * 0x1p-600 * 0x1p-600);
        scale = 0x1p-600;
    } else if (squares.medium != 0) {
        norm = sqrt(squares.medium + squares.small * 0x1p-600 * 0x1p-600);
    } else {
        norm = sqrt(squares.small);
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

KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class compl const
const_cast constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false
float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
protected public register reinterpret_cast return short signed sizeof static static_assert static_cast struct switch
template this thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t
while xor xor_eq INFINITY NAN NULL
"""
"""Words of C++, and macros that a compiler may know, which name nothing else."""
