/* A block's matrix product on the tensor cores: tiles of both operands, DEPTH deep, pass through
 * stages of shared memory as they are in memory, f32 or bf16; fragments of f32 are converted on
 * their way into registers.
 *
 * mma wants four depths of a row in a thread (t, t+4 of two steps in tf32; 2t, 2t+1, 2t+8, 2t+9 in
 * 16 bits). Which depths these are is free as long as both operands agree, so here they are four
 * neighbours, one 16-byte load: thread t of a row takes quads 2t and 2t+1 of the eight.
 *
 * A tile lies in one of two orders, whichever its source can be copied to by 16 bytes:
 *   ALONG_DEPTH   [row][depth], quad q of odd rows at q^1: the eight lanes of a 16-byte access take
 *                 two rows, the same four quads of each
 *   ACROSS_DEPTH  [depth][row], rows in groups of eight, group i at i ^ (depth/8 % 4): the lanes of
 *                 a 4-byte access take eight rows at four depths that are 8 apart
 *
 * In bf16 a thread's two quads are one 16-byte load along the depth, where eight lanes take two
 * whole rows. Across it ldmatrix transposes: the eight depths of a matrix are those that a thread's
 * place wants, two out of each eight, and group i is at i ^ a number that is another for each of
 * them. */
#ifndef KERNELS_CUDA_PRODUCT_CUH
#define KERNELS_CUDA_PRODUCT_CUH

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/operand.h"

/* ROLLED: a loop whose iterations would only fill registers with each other's loads. */
#ifdef __CUDACC__
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")
#else
#define UNROLL
#define ROLLED
#endif

enum { DEPTH = 32, QUAD = 4, QUADS = DEPTH / QUAD, OCTET = 8, STAGES = 3 };

/* Elements of a 16-byte piece, and pieces of a tile's DEPTH. */
template <typename T> constexpr int piece_elements = 16 / (int)sizeof(T);
template <typename T> constexpr int depth_pieces = DEPTH / piece_elements<T>;

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
    typedef float sums[row_tiles][column_tiles][4];
};

/* A stage of shared memory: a tile of A's type, then one of B's. */
template <class shape, typename A, typename B> struct stage_of {
    static constexpr int a_floats = shape::rows * DEPTH * (int)sizeof(A) / (int)sizeof(float);
    static constexpr int b_floats = shape::columns * DEPTH * (int)sizeof(B) / (int)sizeof(float);
    static constexpr int floats = a_floats + b_floats;
    static constexpr int shared_bytes = STAGES * floats * (int)sizeof(float);
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
template <order order, int rows, typename T>
__device__ __forceinline__ int tile_offset(int row, int depth)
{
    if constexpr (sizeof(T) == sizeof(bf16)) {
        if (order == ALONG_DEPTH)
            return row * DEPTH + depth;
        int swizzle = rows < 64 ? depth / 8 : depth / 8 * 2 + depth % 2;
        return depth * rows + ((row / 8) ^ swizzle) * 8 + row % 8;
    }
    if (order == ALONG_DEPTH)
        return row * DEPTH + ((depth / QUAD) ^ (row & 1)) * QUAD + depth % QUAD;
    return depth * rows + ((row / 8) ^ (depth / 8 & 3)) * 8 + row % 8;
}

/* Number i of the 16-byte pieces of a tile, of which there are rows * depth_pieces: neighbours in
 * memory where the source's neighbours are. */
template <order order, int rows, typename T> struct tile_piece {
    int row, depth;

    __device__ __forceinline__ explicit tile_piece(int i)
    {
        constexpr int elements = piece_elements<T>, pieces = depth_pieces<T>;
        row = order == ALONG_DEPTH ? i / pieces : i % (rows / elements) * elements;
        depth = order == ALONG_DEPTH ? i % pieces * elements : i / (rows / elements);
    }
    __device__ __forceinline__ T *in(T *tile) const
    {
        return tile + tile_offset<order, rows, T>(row, depth);
    }
};

/* The first `valid` elements of a piece, zeros after them; `whole`: the source is 16-byte aligned.
 */
__device__ __forceinline__ void copy_piece(float *shared, const float *source, int valid,
                                           bool whole)
{
    if (whole)
        copy_async_16(shared, source, valid * sizeof(float));
    else
        for (int i = 0; i < QUAD; i++)
            copy_async_4(shared + i, i < valid ? source + i : source, i < valid ? 4 : 0);
}

__device__ __forceinline__ void copy_piece(bf16 *shared, const bf16 *source, int valid, bool whole)
{
    if (whole)
        copy_async_16(shared, source, valid * sizeof(bf16));
    else
        for (int i = 0; i < OCTET; i++)
            shared[i].bits = i < valid ? source[i].bits : 0;
}

/* One element, or zero. */
__device__ __forceinline__ void copy_element(float *shared, const float *source, bool valid)
{
    copy_async_4(shared, source, valid ? 4 : 0);
}

__device__ __forceinline__ void copy_element(bf16 *shared, const bf16 *source, bool valid)
{
    shared->bits = valid ? source->bits : 0;
}

template <order order, int rows>
__device__ __forceinline__ void load_quad(float quad[QUAD], const float *tile, int row, int depth)
{
    if (order == ALONG_DEPTH) {
        float4 value =
            *reinterpret_cast<const float4 *>(tile + tile_offset<order, rows, float>(row, depth));
        quad[0] = value.x;
        quad[1] = value.y;
        quad[2] = value.z;
        quad[3] = value.w;
    } else {
        UNROLL
        for (int i = 0; i < QUAD; i++)
            quad[i] = tile[tile_offset<order, rows, float>(row, depth + i)];
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

/* ---- fragments of bf16 ---- */
/* The eight depths of a lane's row or column, which is its group's of the eight from `row` on: two
 * a register, two registers a step of depth 16. */
template <order order, int rows>
__device__ __forceinline__ void load_octet(uint32_t pairs[4], const bf16 *tile, int row)
{
    int lane = threadIdx.x % 32;
    if constexpr (order == ALONG_DEPTH) {
        uint4 words = *reinterpret_cast<const uint4 *>(
            tile + tile_offset<order, rows, bf16>(row + lane / 4, lane % 4 * OCTET));
        pairs[0] = words.x, pairs[1] = words.y;
        pairs[2] = words.z, pairs[3] = words.w;
    } else {
        int depth = lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
        load_matrix_x4_transposed(pairs, tile + tile_offset<order, rows, bf16>(row, depth));
    }
}

template <order order, int rows>
__device__ __forceinline__ void load_octet(uint32_t pairs[4], const float *tile, int row)
{
    int lane = threadIdx.x % 32;
    UNROLL
    for (int half = 0; half < 2; half++) {
        float quad[QUAD];
        load_quad<order, rows>(quad, tile, row + lane / 4, lane % 4 * OCTET + half * QUAD);
        pairs[2 * half] = pack_bf16(quad[0], quad[1]);
        pairs[2 * half + 1] = pack_bf16(quad[2], quad[3]);
    }
}

/* 16 rows by some tiles of 8 columns: sums += 32 depths, of which a thread has an octet of two rows
 * (group, group + 8) and of each tile's column. */
template <int tiles>
__device__ __forceinline__ void multiply_octets(float (&sums)[tiles][4], const uint32_t (&a)[2][4],
                                                const uint32_t (&b)[tiles][4])
{
    UNROLL
    for (int step = 0; step < 2; step++) {
        const uint32_t rows[4] = {a[0][2 * step], a[1][2 * step], a[0][2 * step + 1],
                                  a[1][2 * step + 1]};
        UNROLL
        for (int c = 0; c < tiles; c++)
            mma_m16n8k16_bf16(sums[c], rows, &b[c][2 * step]);
    }
}

/* Pairs of neighbouring columns of two neighbouring tiles, from all lanes of a row, become four
 * neighbouring columns: a sector of bf16 by the row's four lanes. */
struct four_columns {
    int column; /* the first, from the left tile's on */
    pack<4> value;

    __device__ __forceinline__ four_columns(const float *left, const float *right)
    {
        int member = threadIdx.x % 4;
        bool odd = member % 2;
        float first = __shfl_xor_sync(0xffffffff, odd ? left[0] : right[0], 1);
        float second = __shfl_xor_sync(0xffffffff, odd ? left[1] : right[1], 1);
        column = (odd ? 8 : 0) + member / 2 * 4;
        value.at[0] = odd ? first : left[0];
        value.at[1] = odd ? second : left[1];
        value.at[2] = odd ? right[0] : first;
        value.at[3] = odd ? right[1] : second;
    }
};

/* ---- the product ---- */
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

/* With B in bf16 the product is one of bf16, and A becomes it where it is not. */
template <class shape, operand operand, order a_order, order b_order, typename A>
__device__ __forceinline__ void multiply_tiles(typename shape::sums &sums, const A *a_tile,
                                               const bf16 *b_tile)
{
    static_assert(operand == OPERAND_BF16, "bf16 in memory");
    place_in_block<shape> place;
    uint32_t a[2][4], b[shape::column_tiles][4];
    UNROLL
    for (int c = 0; c < shape::column_tiles; c++)
        load_octet<b_order, shape::columns>(b[c], b_tile, place.column + 8 * c);
    UNROLL
    for (int r = 0; r < shape::row_tiles; r++) {
        load_octet<a_order, shape::rows>(a[0], a_tile, place.row + 16 * r);
        load_octet<a_order, shape::rows>(a[1], a_tile, place.row + 16 * r + 8);
        multiply_octets(sums[r], a, b);
    }
}

/* sums += the product of what source.fetch(a_tile, b_tile) copies, step after step. */
template <class shape, operand operand, class source_type>
__device__ __forceinline__ void multiply_steps(typename shape::sums &sums, source_type &source,
                                               int steps, float *stages)
{
    typedef typename source_type::a_element A;
    typedef typename source_type::b_element B;
    typedef stage_of<shape, A, B> layout;
    ROLLED
    for (int step = 0; step < STAGES - 1; step++) {
        float *stage = stages + step * layout::floats;
        if (step < steps)
            source.fetch(reinterpret_cast<A *>(stage),
                         reinterpret_cast<B *>(stage + layout::a_floats));
        copy_async_commit();
    }
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* all see this stage, and have left the one that is fetched next */
        float *stage = stages + (step + STAGES - 1) % STAGES * layout::floats;
        if (step + STAGES - 1 < steps)
            source.fetch(reinterpret_cast<A *>(stage),
                         reinterpret_cast<B *>(stage + layout::a_floats));
        copy_async_commit();
        stage = stages + step % STAGES * layout::floats;
        multiply_tiles<shape, operand, source_type::a_order, source_type::b_order>(
            sums, reinterpret_cast<const A *>(stage),
            reinterpret_cast<const B *>(stage + layout::a_floats));
    }
}

#endif
