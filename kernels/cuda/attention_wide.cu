/* Attention of heads too wide for registers: chunk after chunk of queries, whose scores against all
 * keys stand in the workspace, by products of matrices and one kernel over rows between them.
 * Gradients of keys and values grow from chunk to chunk, in order. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention.cuh"

#include <math.h>

/* 128 blocks are about as many as a large card works at. */
struct cuda_attention_tuning cuda_attention_tuning = {4 << 20, 128};

/* ---- products ---- */
/* One for each pair of picture and head. */
struct matrix {
    float *data;
    size_t picture_stride, head_stride;
    int stride; /* of rows */
};

/* c = scale * a b^T, or += with `add`; across: the operand is stored transposed, rows of depth. */
struct matrix_product {
    matrix a, b, c;
    int rows, columns, depth, heads;
    float scale;
    bool add, whole; /* whole: every row of a and b is 16-byte aligned */
};

static __device__ __forceinline__ float *matrix_of(const matrix &matrix, int heads)
{
    return matrix.data + blockIdx.z / heads * matrix.picture_stride +
           blockIdx.z % heads * matrix.head_stride;
}

template <class shape, order a_order_, order b_order_> struct matrix_tiles {
    static constexpr order a_order = a_order_, b_order = b_order_;

    const matrix_product &p;
    const float *a, *b;
    int first_row, first_column, depth;

    __device__ __forceinline__ explicit matrix_tiles(const matrix_product &p)
        : p(p), a(matrix_of(p.a, p.heads)), b(matrix_of(p.b, p.heads)), depth()
    {
        int across = ceil_divide(p.columns, shape::columns);
        first_row = blockIdx.x / across * shape::rows;
        first_column = blockIdx.x % across * shape::columns;
    }

    template <order order, int rows>
    __device__ __forceinline__ void copy(float *tile, const float *data, int stride, int first,
                                         int count) const
    {
        ROLLED
        for (int i = threadIdx.x; i < rows * QUADS; i += shape::threads) {
            tile_piece<order, rows> piece(i);
            int row = first + piece.row, k = depth + piece.depth;
            int left = row >= count || k >= p.depth ? 0
                       : order == ALONG_DEPTH       ? p.depth - k
                                                    : count - row;
            const float *from = data;
            if (left > 0)
                from += order == ALONG_DEPTH ? (size_t)row * stride + k : (size_t)k * stride + row;
            copy_quad(piece.in(tile), from, min(left, +QUAD), p.whole);
        }
    }

    __device__ __forceinline__ void fetch(float *a_tile, float *b_tile)
    {
        copy<a_order, shape::rows>(a_tile, a, p.a.stride, first_row, p.rows);
        copy<b_order, shape::columns>(b_tile, b, p.b.stride, first_column, p.columns);
        depth += DEPTH;
    }
};

template <class shape>
__device__ __forceinline__ void store_product(const typename shape::sums &sums,
                                              const matrix_product &p, int first_row,
                                              int first_column)
{
    place_in_block<shape> place;
    float *c = matrix_of(p.c, p.heads);
    UNROLL
    for (int i = 0; i < shape::row_tiles * 2; i++) {
        int row = first_row + place.sum_row(i / 2, i % 2 * 2);
        UNROLL
        for (int tile = 0; tile < shape::column_tiles && row < p.rows; tile++) {
            int column = first_column + place.sum_column(tile);
            float *to = c + (size_t)row * p.c.stride + column;
            float2 value = make_float2(p.scale * sums[i / 2][tile][i % 2 * 2],
                                       p.scale * sums[i / 2][tile][i % 2 * 2 + 1]);
            if (column + 1 < p.columns && p.whole) {
                float2 old = p.add ? *reinterpret_cast<float2 *>(to) : make_float2(0, 0);
                *reinterpret_cast<float2 *>(to) = make_float2(old.x + value.x, old.y + value.y);
                continue;
            }
            if (column < p.columns)
                to[0] = (p.add ? to[0] : 0) + value.x;
            if (column + 1 < p.columns)
                to[1] = (p.add ? to[1] : 0) + value.y;
        }
    }
}

template <class shape, order a_order, order b_order>
__global__ void __launch_bounds__(shape::threads, 256 / shape::threads)
    multiply_matrices(const matrix_product p)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    matrix_tiles<shape, a_order, b_order> tiles(p);
    typename shape::sums sums = {};
    multiply_steps<shape, OPERAND_3XTF32>(sums, tiles, ceil_divide(p.depth, DEPTH), dynamic_shared);
    store_product<shape>(sums, p, tiles.first_row, tiles.first_column);
}

template <class shape, order a_order, order b_order>
static void launch_shape(const matrix_product &p, int pairs, cudaStream_t stream)
{
    int tiles = ceil_divide(p.rows, shape::rows) * ceil_divide(p.columns, shape::columns);
    cudaFuncSetAttribute(multiply_matrices<shape, a_order, b_order>,
                         cudaFuncAttributeMaxDynamicSharedMemorySize, shape::shared_bytes);
    LAUNCH((multiply_matrices<shape, a_order, b_order>), dim3((unsigned)tiles, 1, (unsigned)pairs),
           shape::threads, shape::shared_bytes, stream, p);
}

template <order a_order, order b_order>
static void launch_product(const matrix_product &p, int pairs, cudaStream_t stream)
{
    typedef block_shape<128, 128, 64, 32> large;
    typedef block_shape<64, 64, 32, 32> small;
    int blocks = pairs * ceil_divide(p.rows, large::rows) * ceil_divide(p.columns, large::columns);
    if (blocks >= cuda_attention_tuning.large_tile_blocks)
        launch_shape<large, a_order, b_order>(p, pairs, stream);
    else
        launch_shape<small, a_order, b_order>(p, pairs, stream);
}

/* ---- rows of scores ---- */
enum { ROW_THREADS = 256, ROW_WARPS = ROW_THREADS / 32 };

struct add_floats {
    __device__ __forceinline__ float operator()(float a, float b) const
    {
        return a + b;
    }
};
struct larger_float {
    __device__ __forceinline__ float operator()(float a, float b) const
    {
        return fmaxf(a, b);
    }
};

/* Of all threads' values, in all threads; `shared` is not touched again before a barrier. */
template <class operation>
static __device__ float combine_row(float value, float *shared, operation combine)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_xor_sync(0xffffffff, value, distance));
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = value;
    __syncthreads();
    value = shared[0];
    for (int i = 1; i < ROW_WARPS; i++)
        value = combine(value, shared[i]);
    return value;
}

/* One chunk: queries [first, first + rows) of every pair, and up to two matrices of their scores.
 */
struct chunk {
    attention a;
    float *scores, *changes;
    int first, rows, pitch;
};

/* The block's row in a matrix of scores, and its number among all queries of all pairs. */
static __device__ __forceinline__ size_t score_row(const chunk &c)
{
    return ((size_t)blockIdx.y * c.rows + blockIdx.x) * c.pitch;
}

static __device__ __forceinline__ size_t query_number(const chunk &c)
{
    return (size_t)blockIdx.y * c.a.tokens + c.first + blockIdx.x;
}

/* Scaled scores become probabilities. */
__global__ void __launch_bounds__(ROW_THREADS) softmax_rows(const chunk c)
{
    __shared__ float maxima[ROW_WARPS], sums[ROW_WARPS];
    float *row = c.scores + score_row(c), largest = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < c.a.tokens; i += ROW_THREADS)
        largest = fmaxf(largest, row[i]);
    largest = combine_row(largest, maxima, larger_float());
    for (int i = threadIdx.x; i < c.a.tokens; i += ROW_THREADS) {
        float weight = expf(row[i] - largest);
        row[i] = weight;
        sum += weight;
    }
    sum = combine_row(sum, sums, add_floats());
    for (int i = threadIdx.x; i < c.a.tokens; i += ROW_THREADS)
        row[i] /= sum;
    if (threadIdx.x == 0)
        c.a.result_lse[query_number(c)] = largest + logf(sum);
}

/* Scaled scores become probabilities p, and <d_o, v> becomes scale * p * (<d_o, v> - <d_o, o>). */
__global__ void __launch_bounds__(ROW_THREADS) backward_rows(const chunk c)
{
    float *row = c.scores + score_row(c), *change = c.changes + score_row(c);
    float lse = c.a.lse[query_number(c)], inner = c.a.inner[query_number(c)];
    for (int i = threadIdx.x; i < c.a.tokens; i += ROW_THREADS) {
        float probability = expf(row[i] - lse);
        row[i] = probability;
        change[i] = c.a.scale * probability * (change[i] - inner);
    }
}

/* Scaled scores become probabilities p, their changes ds become p * ds, and the result, to which
 * products will be added, -(sum of p * ds) * o. */
__global__ void __launch_bounds__(ROW_THREADS) jvp_rows(const chunk c)
{
    __shared__ float sums[ROW_WARPS];
    float *row = c.scores + score_row(c), *change = c.changes + score_row(c), sum = 0;
    float lse = c.a.lse[query_number(c)];
    for (int i = threadIdx.x; i < c.a.tokens; i += ROW_THREADS) {
        float probability = expf(row[i] - lse), weight = probability * change[i];
        row[i] = probability;
        change[i] = weight;
        sum += weight;
    }
    sum = combine_row(sum, sums, add_floats());
    size_t output = head_place(c.a, blockIdx.y).output;
    output += (size_t)(c.first + blockIdx.x) * output_stride(c.a);
    for (int i = threadIdx.x; i < c.a.width; i += ROW_THREADS)
        c.a.result[output + i] = -sum * c.a.o[output + i];
}

/* ---- chunks ---- */
static int score_pitch(const attention &a)
{
    enum { SECTOR_FLOATS = 8 };
    return ceil_divide(a.tokens, SECTOR_FLOATS) * SECTOR_FLOATS;
}

/* Queries of a chunk: whole tiles. */
static int chunk_rows(const attention &a)
{
    enum { TILE = 64 };
    int all = a.pictures * a.heads * score_pitch(a);
    return min(max(cuda_attention_tuning.chunk_floats / all / TILE * TILE, +TILE), a.tokens);
}

size_t wide_scratch(const attention &a, int matrices)
{
    return (size_t)matrices * a.pictures * a.heads * chunk_rows(a) * score_pitch(a);
}

static chunk chunk_at(const attention &a, int first)
{
    int rows = chunk_rows(a);
    chunk c = {a,
               a.scratch,
               a.scratch + wide_scratch(a, 1),
               first,
               min(rows, a.tokens - first),
               score_pitch(a)};
    return c;
}

static matrix score_matrix(const chunk &c, float *scores)
{
    size_t head = (size_t)c.rows * c.pitch;
    return {scores, c.a.heads * head, head, c.pitch};
}

/* Rows from `token` on: part 0 q, 1 k, 2 v of qkv or its like. */
static matrix packed_matrix(const attention &a, const float *data, int part, int token)
{
    size_t row = packed_stride(a);
    return {const_cast<float *>(data) + token * row + part * a.width, a.tokens * row,
            (size_t)3 * a.width, (int)row};
}

static matrix output_matrix(const attention &a, const float *data, int token)
{
    size_t row = output_stride(a);
    return {const_cast<float *>(data) + token * row, a.tokens * row, (size_t)a.width, (int)row};
}

/* scores = scale * rows of `a` times all tokens' rows of `b` */
static void launch_scores(const chunk &c, const matrix &a, const matrix &b, float *scores,
                          float scale, bool add, cudaStream_t stream)
{
    matrix_product p = {
        a,     b,   score_matrix(c, scores), c.rows, c.a.tokens, c.a.width, c.a.heads,
        scale, add, c.a.width % QUAD == 0};
    launch_product<ALONG_DEPTH, ALONG_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

/* result (+)= scores times all tokens' rows of `values` */
static void launch_weighted(const chunk &c, float *scores, const matrix &values,
                            const matrix &result, bool add, cudaStream_t stream)
{
    matrix_product p = {
        score_matrix(c, scores), values, result, c.rows, c.a.width, c.a.tokens, c.a.heads, 1, add,
        c.a.width % QUAD == 0};
    launch_product<ALONG_DEPTH, ACROSS_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

/* result (+)= scores transposed times the chunk's rows of `values`; added but for the first chunk
 */
static void launch_transposed(const chunk &c, float *scores, const matrix &values,
                              const matrix &result, cudaStream_t stream)
{
    matrix_product p = {score_matrix(c, scores),
                        values,
                        result,
                        c.a.tokens,
                        c.a.width,
                        c.rows,
                        c.a.heads,
                        1,
                        c.first > 0,
                        c.a.width % QUAD == 0};
    launch_product<ACROSS_DEPTH, ACROSS_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

static dim3 row_grid(const chunk &c)
{
    return dim3((unsigned)c.rows, (unsigned)(c.a.pictures * c.a.heads));
}

void launch_wide_attention(const attention &a, cudaStream_t stream)
{
    matrix keys = packed_matrix(a, a.qkv, 1, 0), values = packed_matrix(a, a.qkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, first);
        launch_scores(c, packed_matrix(a, a.qkv, 0, first), keys, c.scores, a.scale, false, stream);
        LAUNCH(softmax_rows, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.scores, values, output_matrix(a, a.result, first), false, stream);
    }
}

void launch_wide_backward(const attention &a, cudaStream_t stream)
{
    matrix keys = packed_matrix(a, a.qkv, 1, 0), values = packed_matrix(a, a.qkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, first);
        matrix queries = packed_matrix(a, a.qkv, 0, first), d_o = output_matrix(a, a.d_o, first);
        launch_scores(c, queries, keys, c.scores, a.scale, false, stream);
        launch_scores(c, d_o, values, c.changes, 1, false, stream);
        LAUNCH(backward_rows, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.changes, keys, packed_matrix(a, a.result, 0, first), false, stream);
        launch_transposed(c, c.changes, queries, packed_matrix(a, a.result, 1, 0), stream);
        launch_transposed(c, c.scores, d_o, packed_matrix(a, a.result, 2, 0), stream);
    }
}

void launch_wide_jvp(const attention &a, cudaStream_t stream)
{
    matrix keys = packed_matrix(a, a.qkv, 1, 0), values = packed_matrix(a, a.qkv, 2, 0);
    matrix key_changes = packed_matrix(a, a.dqkv, 1, 0);
    matrix value_changes = packed_matrix(a, a.dqkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, first);
        matrix queries = packed_matrix(a, a.qkv, 0, first);
        matrix query_changes = packed_matrix(a, a.dqkv, 0, first);
        matrix result = output_matrix(a, a.result, first);
        launch_scores(c, queries, keys, c.scores, a.scale, false, stream);
        launch_scores(c, query_changes, keys, c.changes, a.scale, false, stream);
        launch_scores(c, queries, key_changes, c.changes, a.scale, true, stream);
        LAUNCH(jvp_rows, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.scores, value_changes, result, true, stream);
        launch_weighted(c, c.changes, values, result, true, stream);
    }
}
