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
template <typename T> struct matrix {
    T *data;
    size_t picture_stride, head_stride;
    int stride; /* of rows */
};

/* c = scale * a b^T, or += with `add`; across: the operand is stored transposed, rows of depth. */
template <typename A, typename B> struct matrix_product {
    matrix<const A> a;
    matrix<const B> b;
    matrix<float> c;
    int rows, columns, depth, heads;
    float scale;
    bool add, whole; /* whole: every row of a and b is 16-byte aligned */
};

template <typename T>
static __device__ __forceinline__ T *matrix_of(const matrix<T> &matrix, int heads)
{
    return matrix.data + blockIdx.z / heads * matrix.picture_stride +
           blockIdx.z % heads * matrix.head_stride;
}

template <class shape, order a_order_, order b_order_, typename A, typename B> struct matrix_tiles {
    typedef A a_element;
    typedef B b_element;
    static constexpr order a_order = a_order_, b_order = b_order_;

    const matrix_product<A, B> &p;
    const A *a;
    const B *b;
    int first_row, first_column, depth;

    __device__ __forceinline__ explicit matrix_tiles(const matrix_product<A, B> &p)
        : p(p), a(matrix_of(p.a, p.heads)), b(matrix_of(p.b, p.heads)), depth()
    {
        int across = ceil_divide(p.columns, shape::columns);
        first_row = blockIdx.x / across * shape::rows;
        first_column = blockIdx.x % across * shape::columns;
    }

    template <order order, int rows, typename T>
    __device__ __forceinline__ void copy(T *tile, const T *data, int stride, int first,
                                         int count) const
    {
        ROLLED
        for (int i = threadIdx.x; i < rows * depth_pieces<T>; i += shape::threads) {
            tile_piece<order, rows, T> piece(i);
            int row = first + piece.row, k = depth + piece.depth;
            int left = row >= count || k >= p.depth ? 0
                       : order == ALONG_DEPTH       ? p.depth - k
                                                    : count - row;
            const T *from = data;
            if (left > 0)
                from += order == ALONG_DEPTH ? (size_t)row * stride + k : (size_t)k * stride + row;
            copy_piece(piece.in(tile), from, min(left, piece_elements<T> + 0), p.whole);
        }
    }

    __device__ __forceinline__ void fetch(A *a_tile, B *b_tile)
    {
        copy<a_order, shape::rows>(a_tile, a, p.a.stride, first_row, p.rows);
        copy<b_order, shape::columns>(b_tile, b, p.b.stride, first_column, p.columns);
        depth += DEPTH;
    }
};

template <class shape, typename A, typename B>
__device__ __forceinline__ void store_product(const typename shape::sums &sums,
                                              const matrix_product<A, B> &p, int first_row,
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

/* With values in bf16 the other operand becomes it too. */
template <typename B>
constexpr operand operand_of = sizeof(B) == sizeof(bf16) ? OPERAND_BF16 : OPERAND_3XTF32;

template <class shape, order a_order, order b_order, typename A, typename B>
__global__ void __launch_bounds__(shape::threads, 256 / shape::threads)
    multiply_matrices(const matrix_product<A, B> p)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    matrix_tiles<shape, a_order, b_order, A, B> tiles(p);
    typename shape::sums sums = {};
    multiply_steps<shape, operand_of<B>>(sums, tiles, ceil_divide(p.depth, DEPTH), dynamic_shared);
    store_product<shape>(sums, p, tiles.first_row, tiles.first_column);
}

template <class shape, order a_order, order b_order, typename A, typename B>
static void launch_shape(const matrix_product<A, B> &p, int pairs, cudaStream_t stream)
{
    constexpr int shared_bytes = stage_of<shape, A, B>::shared_bytes;
    int tiles = ceil_divide(p.rows, shape::rows) * ceil_divide(p.columns, shape::columns);
    cudaFuncSetAttribute(multiply_matrices<shape, a_order, b_order, A, B>,
                         cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    LAUNCH((multiply_matrices<shape, a_order, b_order, A, B>),
           dim3((unsigned)tiles, 1, (unsigned)pairs), shape::threads, shared_bytes, stream, p);
}

template <order a_order, order b_order, typename A, typename B>
static void launch_product(const matrix_product<A, B> &p, int pairs, cudaStream_t stream)
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
    float *result; /* a.result, or what becomes it in the end */
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
template <typename T> __global__ void __launch_bounds__(ROW_THREADS) jvp_rows(const chunk c)
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
        c.result[output + i] = -sum * load_one(static_cast<const T *>(c.a.o) + output + i);
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

static size_t score_floats(const attention &a)
{
    return (size_t)a.pictures * a.heads * chunk_rows(a) * score_pitch(a);
}

/* Of a result with so many columns. */
static size_t result_elements(const attention &a, size_t columns)
{
    return (size_t)a.pictures * a.tokens * columns;
}

size_t wide_scratch(const attention &a, int matrices, size_t columns)
{
    return matrices * score_floats(a) + (a.element == TYPE_BF16 ? result_elements(a, columns) : 0);
}

static chunk chunk_at(const attention &a, int matrices, int first)
{
    int rows = chunk_rows(a);
    chunk c = {};
    c.a = a;
    c.scores = a.scratch;
    c.changes = a.scratch + score_floats(a);
    c.result = a.element == TYPE_BF16 ? a.scratch + matrices * score_floats(a)
                                      : static_cast<float *>(a.result);
    c.first = first;
    c.rows = min(rows, a.tokens - first);
    c.pitch = score_pitch(a);
    return c;
}

static matrix<float> score_matrix(const chunk &c, float *scores)
{
    size_t head = (size_t)c.rows * c.pitch;
    return {scores, c.a.heads * head, head, c.pitch};
}

template <typename T> static matrix<const T> constant(const matrix<T> &m)
{
    return {m.data, m.picture_stride, m.head_stride, m.stride};
}

/* Rows from `token` on: part 0 q, 1 k, 2 v of qkv or its like. */
template <typename T>
static matrix<T> packed_matrix(const attention &a, T *data, int part, int token)
{
    size_t row = packed_stride(a);
    return {data + token * row + part * a.width, a.tokens * row, (size_t)3 * a.width, (int)row};
}

template <typename T> static matrix<T> output_matrix(const attention &a, T *data, int token)
{
    size_t row = output_stride(a);
    return {data + token * row, a.tokens * row, (size_t)a.width, (int)row};
}

/* scores = scale * rows of `a` times all tokens' rows of `b` */
template <typename T>
static void launch_scores(const chunk &c, const matrix<const T> &a, const matrix<const T> &b,
                          float *scores, float scale, bool add, cudaStream_t stream)
{
    matrix_product<T, T> p = {
        a,     b,   score_matrix(c, scores),           c.rows, c.a.tokens, c.a.width, c.a.heads,
        scale, add, c.a.width % piece_elements<T> == 0};
    launch_product<ALONG_DEPTH, ALONG_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

/* result (+)= scores times all tokens' rows of `values` */
template <typename T>
static void launch_weighted(const chunk &c, float *scores, const matrix<const T> &values,
                            const matrix<float> &result, bool add, cudaStream_t stream)
{
    matrix_product<float, T> p = {constant(score_matrix(c, scores)),
                                  values,
                                  result,
                                  c.rows,
                                  c.a.width,
                                  c.a.tokens,
                                  c.a.heads,
                                  1,
                                  add,
                                  c.a.width % piece_elements<T> == 0};
    launch_product<ALONG_DEPTH, ACROSS_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

/* result (+)= scores transposed times the chunk's rows of `values`; added but for the first chunk
 */
template <typename T>
static void launch_transposed(const chunk &c, float *scores, const matrix<const T> &values,
                              const matrix<float> &result, cudaStream_t stream)
{
    matrix_product<float, T> p = {constant(score_matrix(c, scores)),
                                  values,
                                  result,
                                  c.a.tokens,
                                  c.a.width,
                                  c.rows,
                                  c.a.heads,
                                  1,
                                  c.first > 0,
                                  c.a.width % piece_elements<T> == 0};
    launch_product<ACROSS_DEPTH, ACROSS_DEPTH>(p, c.a.pictures * c.a.heads, stream);
}

static dim3 row_grid(const chunk &c)
{
    return dim3((unsigned)c.rows, (unsigned)(c.a.pictures * c.a.heads));
}

/* The result of bf16, whose sums over chunks were f32. */
__global__ void __launch_bounds__(ROW_THREADS)
    round_result(const float *from, bf16 *to, size_t elements)
{
    size_t i = ((size_t)blockIdx.x * ROW_THREADS + threadIdx.x) * QUAD;
    if (i + QUAD <= elements)
        store_pack(to + i, load_pack<QUAD>(from + i));
    else
        for (; i < elements; i++)
            store_one(to + i, from[i]);
}

static void finish(const attention &a, int matrices, size_t columns, cudaStream_t stream)
{
    if (a.element != TYPE_BF16)
        return;
    size_t elements = result_elements(a, columns), each = (size_t)ROW_THREADS * QUAD;
    LAUNCH(round_result, (unsigned)((elements + each - 1) / each), ROW_THREADS, 0, stream,
           chunk_at(a, matrices, 0).result, static_cast<bf16 *>(a.result), elements);
}

template <typename T> static void attention_of(const attention &a, cudaStream_t stream)
{
    const T *qkv = static_cast<const T *>(a.qkv);
    matrix<const T> keys = packed_matrix(a, qkv, 1, 0), values = packed_matrix(a, qkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, 1, first);
        launch_scores(c, packed_matrix(a, qkv, 0, first), keys, c.scores, a.scale, false, stream);
        LAUNCH(softmax_rows, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.scores, values, output_matrix(a, c.result, first), false, stream);
    }
    finish(a, 1, output_stride(a), stream);
}

template <typename T> static void backward_of(const attention &a, cudaStream_t stream)
{
    const T *qkv = static_cast<const T *>(a.qkv);
    matrix<const T> keys = packed_matrix(a, qkv, 1, 0), values = packed_matrix(a, qkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, 2, first);
        matrix<const T> queries = packed_matrix(a, qkv, 0, first);
        matrix<const T> d_o = output_matrix(a, static_cast<const T *>(a.d_o), first);
        launch_scores(c, queries, keys, c.scores, a.scale, false, stream);
        launch_scores(c, d_o, values, c.changes, 1, false, stream);
        LAUNCH(backward_rows, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.changes, keys, packed_matrix(a, c.result, 0, first), false, stream);
        launch_transposed(c, c.changes, queries, packed_matrix(a, c.result, 1, 0), stream);
        launch_transposed(c, c.scores, d_o, packed_matrix(a, c.result, 2, 0), stream);
    }
    finish(a, 2, packed_stride(a), stream);
}

template <typename T> static void jvp_of(const attention &a, cudaStream_t stream)
{
    const T *qkv = static_cast<const T *>(a.qkv), *dqkv = static_cast<const T *>(a.dqkv);
    matrix<const T> keys = packed_matrix(a, qkv, 1, 0), values = packed_matrix(a, qkv, 2, 0);
    matrix<const T> key_changes = packed_matrix(a, dqkv, 1, 0);
    matrix<const T> value_changes = packed_matrix(a, dqkv, 2, 0);
    for (int first = 0; first < a.tokens; first += chunk_rows(a)) {
        chunk c = chunk_at(a, 2, first);
        matrix<const T> queries = packed_matrix(a, qkv, 0, first);
        matrix<const T> query_changes = packed_matrix(a, dqkv, 0, first);
        matrix<float> result = output_matrix(a, c.result, first);
        launch_scores(c, queries, keys, c.scores, a.scale, false, stream);
        launch_scores(c, query_changes, keys, c.changes, a.scale, false, stream);
        launch_scores(c, queries, key_changes, c.changes, a.scale, true, stream);
        LAUNCH(jvp_rows<T>, row_grid(c), ROW_THREADS, 0, stream, c);
        launch_weighted(c, c.scores, value_changes, result, true, stream);
        launch_weighted(c, c.changes, values, result, true, stream);
    }
    finish(a, 2, output_stride(a), stream);
}

void launch_wide_attention(const attention &a, cudaStream_t stream)
{
    a.element == TYPE_BF16 ? attention_of<bf16>(a, stream) : attention_of<float>(a, stream);
}

void launch_wide_backward(const attention &a, cudaStream_t stream)
{
    a.element == TYPE_BF16 ? backward_of<bf16>(a, stream) : backward_of<float>(a, stream);
}

void launch_wide_jvp(const attention &a, cudaStream_t stream)
{
    a.element == TYPE_BF16 ? jvp_of<bf16>(a, stream) : jvp_of<float>(a, stream);
}
