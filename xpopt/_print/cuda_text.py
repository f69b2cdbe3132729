"""What CUDA sources have around what is done to an element; ``$name`` is a place that the printer fills."""

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
// Find the numbers of each tensor that $reader reads$and_slots; here a thread is a tensor.
extern "C" __global__ void __launch_bounds__(THREADS)
$kernel(const __grid_constant__ Table table, int tensors$takes, $number *ones$guard)
{
    const int tensor = blockIdx.x * THREADS + threadIdx.x;
    if (tensor >= tensors)
        return;
    const Tensor at = ((const Tensor *)table.bytes)[tensor];
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
update(const __grid_constant__ Table table, int tensors$takes$guard)
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

KEYWORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t class compl const
const_cast constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false
float for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private
protected public register reinterpret_cast return short signed sizeof static static_assert static_cast struct switch
template this thread_local throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t
while xor xor_eq INFINITY NAN NULL
"""
"""Words of C++, and macros that a compiler may know, which name nothing else."""
