// What all kernels share: the storage type, conversions, reductions in a fixed order, products of tiles.
//
// The text is compiled twice: by NVRTC for a card, and as C++17 behind host.h, where tests run it without one. It includes no
// header. STORAGE says how activations and matrices are stored: 0 is f32, 1 is f16, 2 is bf16. Everything is computed in f32.

#ifndef FISAO_HOST
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#define DEVICE static __device__ __forceinline__
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

#define MINUS_INFINITY __int_as_float(0xff800000)
#define ALL_LANES 0xffffffffu

#if STORAGE == 0
typedef float T;
DEVICE float widened(T x) { return x; }
DEVICE T stored(float x) { return x; }
#else
typedef unsigned short T;
#if defined(FISAO_HOST)
#if STORAGE == 1
DEVICE float widened(T x) { return host_from_f16(x); }
DEVICE T stored(float x) { return host_to_f16(x); }
#else
DEVICE float widened(T x) { return host_from_bf16(x); }
DEVICE T stored(float x) { return host_to_bf16(x); }
#endif
#elif STORAGE == 1
DEVICE float widened(T x)
{
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}
DEVICE T stored(float x)
{
    T y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#else
DEVICE float widened(T x) { return __int_as_float((unsigned)x << 16); }
DEVICE T stored(float x)
{
    T y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}
#endif
#endif

// Elements that 16 bytes hold.
#define WIDE (16 / (int)sizeof(T))
// Elements between two rows of a tile in shared memory beyond its width: rows begin 16 bytes apart in the banks.
#define SKEW WIDE

// Steps along the inner dimension that are unrolled: in f32 each is 16 × 4 products of a lane already.
#if STORAGE == 0
#define UNROLLED 1
#else
#define UNROLLED 2
#endif

// --- Reductions: the same order whatever the input ------------------------------------------------------------------------

DEVICE float warp_sum(float x)
{
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

DEVICE float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    return x;
}

// The sum over all threads of a block, to each of them. `scratch` has 32 floats; the block has whole warps.
DEVICE float block_sum(float x, float* scratch)
{
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0.0f;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) total += scratch[warp];
    return total;
}

DEVICE float block_max(float x, float* scratch)
{
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float highest = MINUS_INFINITY;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) highest = fmaxf(highest, scratch[warp]);
    return highest;
}

// --- Which keys a query sees ----------------------------------------------------------------------------------------------
//
// Several responses to one prompt may stand behind it in one sequence: `prefix` positions, then segments of `segment` positions each.
// A query sees the prefix and what stands before it in its own segment. Without segments the prefix is longer than any sequence.

// Where the segment of a query begins; 0 in the prefix.
DEVICE int segment_start(int query, int prefix, int segment)
{
    return query < prefix ? 0 : prefix + (query - prefix) / segment * segment;
}

// How far a position is behind its place: as if its segment were the first.
DEVICE int segment_shift(int start, int prefix) { return start < prefix ? 0 : start - prefix; }

// Whether a query whose segment begins at `start` sees a key behind the padding.
DEVICE bool sees(int query, int start, int key, int prefix, int window)
{
    int shift = segment_shift(start, prefix);
    int key_position = key < prefix ? key : key - shift;
    return key <= query && (key < prefix || key >= start) && key_position >= query - shift + 1 - window;
}

// --- Tiles in shared memory -----------------------------------------------------------------------------------------------

// Copies `rows` of `width` elements, `stride` apart, into a tile of `tile_rows` rows of D elements, D + SKEW apart; the rest of
// the tile is zero. By all threads of the block.
template <int D>
DEVICE void load_tile(T* tile, int tile_rows, const T* from, int rows, int width, long long stride)
{
    if (width % WIDE == 0 && stride % WIDE == 0) {
        for (int at = threadIdx.x; at < tile_rows * (D / WIDE); at += blockDim.x) {
            int row = at / (D / WIDE), column = at % (D / WIDE) * WIDE;
            uint4 value = make_uint4(0, 0, 0, 0);
            if (row < rows && column < width) value = *(const uint4*)(from + row * stride + column);
            *(uint4*)(tile + row * (D + SKEW) + column) = value;
        }
    } else {
        for (int at = threadIdx.x; at < tile_rows * D; at += blockDim.x) {
            int row = at / D, column = at % D;
            bool inside = row < rows && column < width;
            tile[row * (D + SKEW) + column] = inside ? from[row * stride + column] : stored(0.0f);
        }
    }
}

// --- Products of tiles ----------------------------------------------------------------------------------------------------
//
// A warp multiplies a tile of 16 × 16 by one of 16 × 8. Lane l, with g = l / 4 and t = l % 4, has four numbers of the result:
// rows g and g + 8, columns 2t and 2t + 1. That is the layout of `mma.sync.m16n8k16`.

#if STORAGE == 0

struct Left {
    const T* at;
    int row, column;
};
struct Right {
    const T* at;
    int row, column;
};

// The left factor from shared memory; its rows are `row` elements apart, its columns `column`.
DEVICE Left left_tile(const T* at, int row, int column) { return {at, row, column}; }
// The right factor, 16 rows of 8.
DEVICE Right right_tile(const T* at, int row, int column) { return {at, row, column}; }

DEVICE void add_product(float* sum, Left a, Right b)
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const T* low = a.at + g * a.row;
    const T* high = low + 8 * a.row;
    const T* first = b.at + 2 * t * b.column;
    const T* second = first + b.column;
#pragma unroll 4
    for (int k = 0; k < 16; k++) {
        float x = low[k * a.column], y = high[k * a.column];
        float u = first[k * b.row], v = second[k * b.row];
        sum[0] += x * u;
        sum[1] += x * v;
        sum[2] += y * u;
        sum[3] += y * v;
    }
}

#else

struct Left {
    unsigned at[4];
};
struct Right {
    unsigned at[2];
};

// Two neighbours, the first in the lower half.
DEVICE unsigned pair(const T* at, int step)
{
    if (step == 1) return *(const unsigned*)at;
    return (unsigned)at[0] | (unsigned)at[step] << 16;
}

DEVICE Left left_tile(const T* at, int row, int column)
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const T* low = at + g * row + 2 * t * column;
    const T* high = low + 8 * row;
    Left tile;
    tile.at[0] = pair(low, column);
    tile.at[1] = pair(high, column);
    tile.at[2] = pair(low + 8 * column, column);
    tile.at[3] = pair(high + 8 * column, column);
    return tile;
}

DEVICE Right right_tile(const T* at, int row, int column)
{
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const T* first = at + 2 * t * row + g * column;
    Right tile;
    tile.at[0] = pair(first, row);
    tile.at[1] = pair(first + 8 * row, row);
    return tile;
}

// The one function with tensor-core instructions.
DEVICE void add_product(float* sum, Left a, Right b)
{
#if defined(FISAO_HOST)
    host_mma(sum, a.at, b.at, widened);
#elif STORAGE == 1
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
#endif
}

#endif
