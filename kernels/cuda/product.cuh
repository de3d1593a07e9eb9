/* A block's matrix product on the tensor cores: tiles of both operands, DEPTH deep, pass through
 * stages of shared memory as f32; fragments are converted on their way into registers.
 *
 * mma wants four depths of a row in a thread (t, t+4 of two steps in tf32; 2t, 2t+1, 2t+8, 2t+9 in
 * 16 bits). Which depths these are is free as long as both operands agree, so here they are four
 * neighbours, one 16-byte load: thread t of a row takes quads 2t and 2t+1 of the eight.
 *
 * A tile lies in one of two orders, whichever its source can be copied to by 16 bytes:
 *   ALONG_DEPTH   [row][depth], quad q of odd rows at q^1: the eight lanes of a 16-byte access take
 *                 two rows, the same four quads of each
 *   ACROSS_DEPTH  [depth][row], rows in groups of eight, group i at i ^ (depth/8 % 4): the lanes of
 *                 a 4-byte access take eight rows at four depths that are 8 apart */
#ifndef KERNELS_CUDA_PRODUCT_CUH
#define KERNELS_CUDA_PRODUCT_CUH

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/ptx.cuh"

/* ROLLED: a loop whose iterations would only fill registers with each other's loads. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#else
#define UNROLL
#define ROLLED
#endif

enum { DEPTH = 32, QUAD = 4, QUADS = DEPTH / QUAD, STAGES = 3 };

enum order { ALONG_DEPTH, ACROSS_DEPTH };

__host__ __device__ static inline int ceil_divide(int a, int b)
{
    return (a + b - 1) / b;
}

/* A block's rows and columns of the product, in warps of so many rows and columns. */
template <int rows_, int columns_, int warp_rows_, int warp_columns_> struct block_shape {
    static constexpr int rows = rows_, columns = columns_;
    static constexpr int warp_rows = warp_rows_, warp_columns = warp_columns_;
    static constexpr int threads = rows / warp_rows * (columns / warp_columns) * 32;
    static constexpr int row_tiles = warp_rows / 16, column_tiles = warp_columns / 8;
    static constexpr int stage_floats = (rows + columns) * DEPTH;
    static constexpr int shared_bytes = STAGES * stage_floats * (int)sizeof(float);
    typedef float sums[row_tiles][column_tiles][4];
};

/* Where a warp's part begins, and a lane's place in fragments. */
template <class shape> struct place_in_block {
    int row, column, group, member;

    __device__ __forceinline__ place_in_block()
    {
        constexpr int across = shape::columns / shape::warp_columns;
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        row = warp / across * shape::warp_rows;
        column = warp % across * shape::warp_columns;
        group = lane / 4;
        member = lane % 4;
    }
    /* of element i of the sums [tile][..] */
    __device__ __forceinline__ int sum_row(int tile, int i) const
    {
        return row + 16 * tile + group + 8 * (i / 2);
    }
    __device__ __forceinline__ int sum_column(int tile) const
    {
        return column + 8 * tile + 2 * member;
    }
};

/* ---- tiles in shared memory ---- */
template <order order, int rows> __device__ __forceinline__ int tile_offset(int row, int depth)
{
    if (order == ALONG_DEPTH)
        return row * DEPTH + ((depth / QUAD) ^ (row & 1)) * QUAD + depth % QUAD;
    return depth * rows + ((row / 8) ^ (depth / 8 & 3)) * 8 + row % 8;
}

/* Number i of the 16-byte pieces of a tile, of which there are rows * QUADS: neighbours in memory
 * where the source's neighbours are. */
template <order order, int rows> struct tile_piece {
    int row, depth;

    __device__ __forceinline__ explicit tile_piece(int i)
    {
        row = order == ALONG_DEPTH ? i / QUADS : i % (rows / QUAD) * QUAD;
        depth = order == ALONG_DEPTH ? i % QUADS * QUAD : i / (rows / QUAD);
    }
    __device__ __forceinline__ float *in(float *tile) const
    {
        return tile + tile_offset<order, rows>(row, depth);
    }
};

/* The first `valid` of four floats, zeros after them; `whole`: the source is 16-byte aligned. */
__device__ __forceinline__ void copy_quad(float *shared, const float *source, int valid, bool whole)
{
    if (whole)
        copy_async_16(shared, source, valid * sizeof(float));
    else
        for (int i = 0; i < QUAD; i++)
            copy_async_4(shared + i, i < valid ? source + i : source, i < valid ? 4 : 0);
}

template <order order, int rows>
__device__ __forceinline__ void load_quad(float quad[QUAD], const float *tile, int row, int depth)
{
    if (order == ALONG_DEPTH) {
        float4 value =
            *reinterpret_cast<const float4 *>(tile + tile_offset<order, rows>(row, depth));
        quad[0] = value.x;
        quad[1] = value.y;
        quad[2] = value.z;
        quad[3] = value.w;
    } else {
        UNROLL
        for (int i = 0; i < QUAD; i++)
            quad[i] = tile[tile_offset<order, rows>(row, depth + i)];
    }
}

/* ---- fragments ---- */
/* value = big + small but for 2^-23 of it, both tf32. Cutting off the big part leaves an exact rest
 * and costs one instruction, where rounding costs several. */
__device__ __forceinline__ void split_tf32(float value, uint32_t *big, uint32_t *small)
{
    *big = __float_as_uint(value) & 0xffffe000;
    float rest = value - __uint_as_float(*big);
    *small = (__float_as_uint(rest) + 0x1000) & 0xffffe000;
}

/* The operands of the two steps of depth 8 in a quad: elements 2*step and 2*step + 1. */
__device__ __forceinline__ void split_row(const float quad[QUAD], int step, int stride,
                                          uint32_t *big, uint32_t *small)
{
    split_tf32(quad[2 * step], &big[0], &small[0]);
    split_tf32(quad[2 * step + 1], &big[stride], &small[stride]);
}

/* Each step's three products meet in sums of their own, added in f32: the tensor cores cut sums
 * toward zero, which over a thousand steps would cost more than the operands' rounding. */
template <int tiles>
__device__ __forceinline__ void multiply_3xtf32(float (&sums)[tiles][4], const float (&a)[2][QUAD],
                                                const float (&b)[tiles][QUAD], int step)
{
    uint32_t a_big[4], a_small[4], b_big[tiles][2], b_small[tiles][2];
    split_row(a[0], step, 2, a_big, a_small);
    split_row(a[1], step, 2, a_big + 1, a_small + 1);
    UNROLL
    for (int c = 0; c < tiles; c++)
        split_row(b[c], step, 1, b_big[c], b_small[c]);
    float part[tiles][4] = {};
    UNROLL
    for (int c = 0; c < tiles; c++)
        mma_m16n8k8_tf32(part[c], a_small, b_big[c]);
    UNROLL
    for (int c = 0; c < tiles; c++)
        mma_m16n8k8_tf32(part[c], a_big, b_small[c]);
    UNROLL
    for (int c = 0; c < tiles; c++)
        mma_m16n8k8_tf32(part[c], a_big, b_big[c]);
    UNROLL
    for (int i = 0; i < tiles * 4; i++)
        sums[i / 4][i % 4] += part[i / 4][i % 4];
}

template <int tiles>
__device__ __forceinline__ void multiply_tf32(float (&sums)[tiles][4], const float (&a)[2][QUAD],
                                              const float (&b)[tiles][QUAD], int step)
{
    uint32_t rows[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        rows[i] = to_tf32(a[i % 2][2 * step + i / 2]);
    UNROLL
    for (int c = 0; c < tiles; c++) {
        uint32_t columns[2] = {to_tf32(b[c][2 * step]), to_tf32(b[c][2 * step + 1])};
        mma_m16n8k8_tf32(sums[c], rows, columns);
    }
}

template <operand operand> __device__ __forceinline__ uint32_t pack_half(const float *pair)
{
    return operand == OPERAND_BF16 ? pack_bf16(pair[0], pair[1]) : pack_f16(pair[0], pair[1]);
}

template <operand operand, int tiles>
__device__ __forceinline__ void multiply_half(float (&sums)[tiles][4], const float (&a)[2][QUAD],
                                              const float (&b)[tiles][QUAD])
{
    uint32_t rows[4];
    UNROLL
    for (int i = 0; i < 4; i++)
        rows[i] = pack_half<operand>(a[i % 2] + i / 2 * 2);
    UNROLL
    for (int c = 0; c < tiles; c++) {
        uint32_t columns[2] = {pack_half<operand>(b[c]), pack_half<operand>(b[c] + 2)};
        if (operand == OPERAND_BF16)
            mma_m16n8k16_bf16(sums[c], rows, columns);
        else
            mma_m16n8k16_f16(sums[c], rows, columns);
    }
}

/* 16 rows by some tiles of 8 columns: sums += 16 depths, of which a thread has a quad of two rows
 * (group, group + 8) and of each tile's column. */
template <operand operand, int tiles>
__device__ __forceinline__ void multiply_quads(float (&sums)[tiles][4], const float (&a)[2][QUAD],
                                               const float (&b)[tiles][QUAD])
{
    if constexpr (operand == OPERAND_BF16 || operand == OPERAND_F16)
        multiply_half<operand>(sums, a, b);
    else {
        UNROLL
        for (int step = 0; step < 2; step++)
            if constexpr (operand == OPERAND_3XTF32)
                multiply_3xtf32(sums, a, b, step);
            else
                multiply_tf32(sums, a, b, step);
    }
}

/* sums += a tile of A times a tile of B, the warp's part. */
template <class shape, operand operand, order a_order, order b_order>
__device__ __forceinline__ void multiply_tiles(typename shape::sums &sums, const float *a_tile,
                                               const float *b_tile)
{
    place_in_block<shape> place;
    ROLLED
    for (int half = 0; half < 2; half++) {
        int depth = 8 * place.member + QUAD * half;
        float a[2][QUAD], b[shape::column_tiles][QUAD];
        UNROLL
        for (int c = 0; c < shape::column_tiles; c++)
            load_quad<b_order, shape::columns>(b[c], b_tile, place.column + 8 * c + place.group,
                                               depth);
        UNROLL
        for (int r = 0; r < shape::row_tiles; r++) {
            int row = place.row + 16 * r + place.group;
            load_quad<a_order, shape::rows>(a[0], a_tile, row, depth);
            load_quad<a_order, shape::rows>(a[1], a_tile, row + 8, depth);
            multiply_quads<operand>(sums[r], a, b);
        }
    }
}

/* sums += the product of what source.fetch(a_tile, b_tile) copies, step after step. */
template <class shape, operand operand, class source_type>
__device__ __forceinline__ void multiply_steps(typename shape::sums &sums, source_type &source,
                                               int steps, float *stages)
{
    constexpr int a_floats = shape::rows * DEPTH;
    ROLLED
    for (int step = 0; step < STAGES - 1; step++) {
        float *stage = stages + step * shape::stage_floats;
        if (step < steps)
            source.fetch(stage, stage + a_floats);
        copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* all see this stage, and have left the one that is fetched next */
        float *stage = stages + (step + STAGES - 1) % STAGES * shape::stage_floats;
        if (step + STAGES - 1 < steps)
            source.fetch(stage, stage + a_floats);
        copy_async_commit();
        stage = stages + step % STAGES * shape::stage_floats;
        multiply_tiles<shape, operand, source_type::a_order, source_type::b_order>(
            sums, stage, stage + a_floats);
    }
}

#endif
