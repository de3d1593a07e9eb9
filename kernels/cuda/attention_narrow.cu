/* Attention of narrow heads: a block owns 64 queries (for dk and dv: keys) and meets the others in
 * tiles of 32 that stream through shared memory. A warp has 16 rows of scores in registers, where
 * they become probabilities and, as they lie, the first operand of the next product. Nobody but the
 * owner adds to a row of a result.
 *
 * Tiles are [token][channel] with quad q of token t at q ^ (t & 7): as an operand along the
 * channels a 16-byte access takes the same four quads of two tokens, as one across the tokens a
 * 4-byte access takes eight channels of tokens 2 apart, and neither meets a bank twice. */
#include "kernels/cuda/attention.cuh"

#include <math.h>

enum { OWN = 64, STREAM = 32, CHANNELS = 32 /* of a slice of a head */ };
typedef block_shape<OWN, STREAM, 16, STREAM> score_shape;
typedef score_shape::sums scores; /* [0][tile][..]; also a slice of a result's rows */
enum { THREADS = score_shape::threads, TILES = score_shape::column_tiles };
constexpr operand OPERAND = OPERAND_3XTF32;

template <int width> __device__ __forceinline__ int token_offset(int token, int channel)
{
    return token * width + ((channel / QUAD) ^ (token & 7)) * QUAD + channel % QUAD;
}

/* Rows of a head as they lie in memory. */
struct token_rows {
    const float *data;
    size_t stride;
};

template <int width, int tokens>
__device__ __forceinline__ void copy_tokens(float *tile, const token_rows &rows, const attention &a,
                                            int first)
{
    UNROLL
    for (int i = threadIdx.x; i < tokens * width / QUAD; i += THREADS) {
        int token = i / (width / QUAD), channel = i % (width / QUAD) * QUAD;
        int left = first + token < a.tokens ? a.width - channel : 0;
        const float *from = rows.data;
        if (left > 0)
            from += (first + token) * rows.stride + channel;
        copy_quad(tile + token_offset<width>(token, channel), from, max(min(left, +QUAD), 0),
                  a.width % QUAD == 0);
    }
}

/* What a block owns, and what streams past it, double-buffered. */
template <int width, int owned, int streamed> struct traffic {
    static constexpr int own_floats = OWN * width, tile_floats = STREAM * width;
    static constexpr int shared_bytes =
        (owned * own_floats + 2 * streamed * tile_floats) * (int)sizeof(float);

    const attention &a;
    float *shared;
    int first; /* of the owned tokens */
    token_rows stream[streamed];

    __device__ __forceinline__ traffic(const attention &a, float *shared, int first)
        : a(a), shared(shared), first(first)
    {
    }
    __device__ __forceinline__ void own(int number, const float *data, size_t stride)
    {
        copy_tokens<width, OWN>(shared + number * own_floats, {data, stride}, a, first);
    }
    __device__ __forceinline__ void fetch(int step)
    {
        UNROLL
        for (int i = 0; i < streamed; i++)
            copy_tokens<width, STREAM>(tile(step, i), stream[i], a, step * STREAM);
        copy_async_commit();
    }
    /* Step's tiles are there, and the next step's on their way. */
    __device__ __forceinline__ void arrive(int step)
    {
        copy_async_wait<0>();
        __syncthreads(); /* all see these tiles, and have left those that are fetched next */
        if ((step + 1) * STREAM < a.tokens)
            fetch(step + 1);
    }
    __device__ __forceinline__ const float *owned_tile(int number) const
    {
        return shared + number * own_floats;
    }
    __device__ __forceinline__ float *tile(int step, int number) const
    {
        return shared + owned * own_floats + (step % 2 * streamed + number) * tile_floats;
    }
};

/* s += own rows times the streamed tokens', over the channels. */
template <int width>
__device__ __forceinline__ void multiply_rows(scores &s, const float *own, const float *tile)
{
    place_in_block<score_shape> place;
    ROLLED
    for (int depth = 0; depth < width; depth += CHANNELS / 2) {
        int channel = depth / CHANNELS * CHANNELS + 8 * place.member + depth % CHANNELS / QUAD;
        float rows[2][QUAD], columns[TILES][QUAD];
        UNROLL
        for (int i = 0; i < 2; i++) {
            int token = place.row + 8 * i + place.group;
            float4 quad =
                *reinterpret_cast<const float4 *>(own + token_offset<width>(token, channel));
            rows[i][0] = quad.x, rows[i][1] = quad.y;
            rows[i][2] = quad.z, rows[i][3] = quad.w;
        }
        UNROLL
        for (int c = 0; c < TILES; c++) {
            int token = 8 * c + place.group;
            float4 quad =
                *reinterpret_cast<const float4 *>(tile + token_offset<width>(token, channel));
            columns[c][0] = quad.x, columns[c][1] = quad.y;
            columns[c][2] = quad.z, columns[c][3] = quad.w;
        }
        multiply_quads<OPERAND>(s[0], rows, columns);
    }
}

/* result += weights, 16 rows by the streamed tokens, times these tokens' channels. */
template <int width>
__device__ __forceinline__ void add_weighted(scores (&result)[width / CHANNELS],
                                             const scores &weights, const float *tile)
{
    place_in_block<score_shape> place;
    ROLLED
    for (int pair = 0; pair < TILES; pair += 2) {
        float rows[2][QUAD];
        UNROLL
        for (int i = 0; i < 2 * QUAD; i++) {
            int tile = i % QUAD / 2, element = i / QUAD * 2 + i % 2;
            rows[i / QUAD][i % QUAD] =
                pair == 0 ? weights[0][tile][element] : weights[0][tile + 2][element];
        }
        UNROLL
        for (int slice = 0; slice < width / CHANNELS; slice++) {
            float columns[TILES][QUAD];
            UNROLL
            for (int i = 0; i < TILES * QUAD; i++) {
                int token = 8 * (pair + i % QUAD / 2) + 2 * place.member + i % 2;
                int channel = slice * CHANNELS + i / QUAD * 8 + place.group;
                columns[i / QUAD][i % QUAD] = tile[token_offset<width>(token, channel)];
            }
            multiply_quads<OPERAND>(result[slice][0], rows, columns);
        }
    }
}

/* A row's two neighbouring channels, as far as the head has them. */
__device__ __forceinline__ void store_channels(float *row, int channel, int width, float first,
                                               float second)
{
    if (width % 2 == 0 && channel < width)
        *reinterpret_cast<float2 *>(row + channel) = make_float2(first, second);
    else {
        if (channel < width)
            row[channel] = first;
        if (channel + 1 < width)
            row[channel + 1] = second;
    }
}

/* Rows of a result, times a factor for each half (rows group and group + 8). */
template <int width>
__device__ __forceinline__ void store_rows(const scores (&result)[width / CHANNELS],
                                           const float factor[2], float *data, size_t stride,
                                           const attention &a, int first)
{
    place_in_block<score_shape> place;
    UNROLL
    for (int half = 0; half < 2; half++) {
        int token = first + place.sum_row(0, 2 * half);
        UNROLL
        for (int i = 0; i < width / 8 && token < a.tokens; i++) {
            const float *value = &result[i / TILES][0][i % TILES][2 * half];
            store_channels(data + token * stride, 8 * i + 2 * place.member, a.width,
                           value[0] * factor[half], value[1] * factor[half]);
        }
    }
}

/* Of the four lanes that share a row. */
__device__ __forceinline__ float row_sum(float value)
{
    value += __shfl_xor_sync(0xffffffff, value, 1);
    return value + __shfl_xor_sync(0xffffffff, value, 2);
}

__device__ __forceinline__ float row_largest(float value)
{
    value = fmaxf(value, __shfl_xor_sync(0xffffffff, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffff, value, 2));
}

/* The block's pair of picture and head, and its first token. */
__device__ __forceinline__ int block_pair(const attention &a)
{
    return blockIdx.x / ceil_divide(a.tokens, OWN);
}

__device__ __forceinline__ int block_first(const attention &a)
{
    return blockIdx.x % ceil_divide(a.tokens, OWN) * OWN;
}

/* The key (or query) of a score's column in step's tile. */
__device__ __forceinline__ int streamed_token(int step, int tile, int i)
{
    return step * STREAM + 8 * tile + threadIdx.x % 4 * 2 + i % 2;
}

/* ---- forward ---- */
/* The largest score so far of a thread's two rows, and the thread's share of the sum of
 * exp(score - largest). */
struct running_softmax {
    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
};

/* Scores become exp(score - largest); returns how much smaller earlier ones got, for each half. */
static __device__ __forceinline__ void exponentiate(scores &s, running_softmax &softmax,
                                                    const attention &a, int step, float shrink[2])
{
    float largest[2] = {softmax.largest[0], softmax.largest[1]};
    UNROLL
    for (int i = 0; i < TILES * 4; i++) {
        float &score = s[0][i / 4][i % 4];
        score = streamed_token(step, i / 4, i) < a.tokens ? score * a.scale : -INFINITY;
        largest[i % 4 / 2] = fmaxf(largest[i % 4 / 2], score);
    }
    UNROLL
    for (int half = 0; half < 2; half++) {
        largest[half] = row_largest(largest[half]);
        shrink[half] = expf(softmax.largest[half] - largest[half]);
        softmax.largest[half] = largest[half];
        softmax.sum[half] *= shrink[half];
    }
    UNROLL
    for (int i = 0; i < TILES * 4; i++) {
        float &score = s[0][i / 4][i % 4];
        score = expf(score - largest[i % 4 / 2]);
        softmax.sum[i % 4 / 2] += score;
    }
}

template <int width> __global__ void __launch_bounds__(THREADS, 2) attend(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 1, 2> traffic(a, dynamic_shared, block_first(a));
    const float *q = a.qkv + place.packed;
    traffic.own(0, q, packed_stride(a));
    traffic.stream[0] = {q + a.width, packed_stride(a)};
    traffic.stream[1] = {q + 2 * a.width, packed_stride(a)};
    traffic.fetch(0);
    scores result[width / CHANNELS] = {};
    running_softmax softmax;
    for (int step = 0; step * STREAM < a.tokens; step++) {
        traffic.arrive(step);
        scores s = {};
        float shrink[2];
        multiply_rows<width>(s, traffic.owned_tile(0), traffic.tile(step, 0));
        exponentiate(s, softmax, a, step, shrink);
        UNROLL
        for (int i = 0; i < width / 2; i++)
            result[i / 16][0][i / 4 % TILES][i % 4] *= shrink[i % 4 / 2];
        add_weighted<width>(result, s, traffic.tile(step, 1));
    }
    float factor[2];
    for (int half = 0; half < 2; half++) {
        float sum = row_sum(softmax.sum[half]);
        int token = traffic.first + place_in_block<score_shape>().sum_row(0, 2 * half);
        factor[half] = 1 / sum;
        if (threadIdx.x % 4 == 0 && token < a.tokens)
            a.result_lse[place.number + token] = softmax.largest[half] + logf(sum);
    }
    store_rows<width>(result, factor, a.result + place.output, output_stride(a), a, traffic.first);
}

/* ---- derivatives ---- */
/* A number per owned row: of rows group and group + 8. */
__device__ __forceinline__ void load_row_numbers(float number[2], const float *numbers,
                                                 const attention &a, int first)
{
    UNROLL
    for (int half = 0; half < 2; half++) {
        int token = first + place_in_block<score_shape>().sum_row(0, 2 * half);
        number[half] = token < a.tokens ? numbers[token] : 0;
    }
}

__device__ __forceinline__ float probability(const attention &a, float score, float lse,
                                             bool inside)
{
    return inside ? expf(a.scale * score - lse) : 0;
}

/* Queries' gradient: sum over keys of scale * p * (<d_o, v> - <d_o, o>) * k. */
template <int width>
__global__ void __launch_bounds__(THREADS, 2) attend_back_queries(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 2> traffic(a, dynamic_shared, block_first(a));
    const float *q = a.qkv + place.packed;
    traffic.own(0, q, packed_stride(a));
    traffic.own(1, a.d_o + place.output, output_stride(a));
    traffic.stream[0] = {q + a.width, packed_stride(a)};
    traffic.stream[1] = {q + 2 * a.width, packed_stride(a)};
    traffic.fetch(0);
    float lse[2], inner[2];
    load_row_numbers(lse, a.lse + place.number, a, traffic.first);
    load_row_numbers(inner, a.inner + place.number, a, traffic.first);
    scores result[width / CHANNELS] = {};
    for (int step = 0; step * STREAM < a.tokens; step++) {
        traffic.arrive(step);
        scores s = {}, change = {};
        multiply_rows<width>(s, traffic.owned_tile(0), traffic.tile(step, 0));
        multiply_rows<width>(change, traffic.owned_tile(1), traffic.tile(step, 1));
        UNROLL
        for (int i = 0; i < TILES * 4; i++) {
            bool inside = streamed_token(step, i / 4, i) < a.tokens;
            float p = probability(a, s[0][i / 4][i % 4], lse[i % 4 / 2], inside);
            s[0][i / 4][i % 4] = p * (change[0][i / 4][i % 4] - inner[i % 4 / 2]);
        }
        add_weighted<width>(result, s, traffic.tile(step, 0));
    }
    const float factor[2] = {a.scale, a.scale};
    store_rows<width>(result, factor, a.result + place.packed, packed_stride(a), a, traffic.first);
}

/* Keys' and values' gradients, with rows of keys and columns of queries: sums over queries of
 * scale * p * (<v, d_o> - <d_o, o>) * q, and of p * d_o. */
template <int width>
__global__ void __launch_bounds__(THREADS, 2) attend_back_keys(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 2> traffic(a, dynamic_shared, block_first(a));
    const float *q = a.qkv + place.packed;
    traffic.own(0, q + a.width, packed_stride(a));
    traffic.own(1, q + 2 * a.width, packed_stride(a));
    traffic.stream[0] = {q, packed_stride(a)};
    traffic.stream[1] = {a.d_o + place.output, output_stride(a)};
    traffic.fetch(0);
    scores keys[width / CHANNELS] = {}, values[width / CHANNELS] = {};
    for (int step = 0; step * STREAM < a.tokens; step++) {
        traffic.arrive(step);
        scores s = {}, change = {};
        multiply_rows<width>(s, traffic.owned_tile(0), traffic.tile(step, 0));
        UNROLL
        for (int i = 0; i < TILES * 4; i++) {
            int query = streamed_token(step, i / 4, i);
            float lse = query < a.tokens ? a.lse[place.number + query] : 0;
            s[0][i / 4][i % 4] = probability(a, s[0][i / 4][i % 4], lse, query < a.tokens);
        }
        add_weighted<width>(values, s, traffic.tile(step, 1));
        multiply_rows<width>(change, traffic.owned_tile(1), traffic.tile(step, 1));
        UNROLL
        for (int i = 0; i < TILES * 4; i++) {
            int query = streamed_token(step, i / 4, i);
            float inner = query < a.tokens ? a.inner[place.number + query] : 0;
            change[0][i / 4][i % 4] = s[0][i / 4][i % 4] * (change[0][i / 4][i % 4] - inner);
        }
        add_weighted<width>(keys, change, traffic.tile(step, 0));
    }
    const float factor[2] = {a.scale, a.scale}, one[2] = {1, 1};
    float *result = a.result + place.packed;
    store_rows<width>(keys, factor, result + a.width, packed_stride(a), a, traffic.first);
    store_rows<width>(values, one, result + 2 * a.width, packed_stride(a), a, traffic.first);
}

/* The change of o: sum over keys of p * dv + p * ds * v, less (sum of p * ds) * o. */
template <int width> __global__ void __launch_bounds__(THREADS, 2) attend_jvp(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 4> traffic(a, dynamic_shared, block_first(a));
    const float *q = a.qkv + place.packed, *dq = a.dqkv + place.packed;
    traffic.own(0, q, packed_stride(a));
    traffic.own(1, dq, packed_stride(a));
    for (int i = 0; i < 2; i++) {
        traffic.stream[i] = {q + (i + 1) * a.width, packed_stride(a)};
        traffic.stream[2 + i] = {dq + (i + 1) * a.width, packed_stride(a)};
    }
    traffic.fetch(0);
    float lse[2], sum[2] = {0, 0};
    load_row_numbers(lse, a.lse + place.number, a, traffic.first);
    scores result[width / CHANNELS] = {};
    for (int step = 0; step * STREAM < a.tokens; step++) {
        traffic.arrive(step);
        scores s = {}, change = {};
        multiply_rows<width>(s, traffic.owned_tile(0), traffic.tile(step, 0));
        UNROLL
        for (int i = 0; i < TILES * 4; i++) {
            bool inside = streamed_token(step, i / 4, i) < a.tokens;
            s[0][i / 4][i % 4] = probability(a, s[0][i / 4][i % 4], lse[i % 4 / 2], inside);
        }
        add_weighted<width>(result, s, traffic.tile(step, 3));
        multiply_rows<width>(change, traffic.owned_tile(1), traffic.tile(step, 0));
        multiply_rows<width>(change, traffic.owned_tile(0), traffic.tile(step, 2));
        UNROLL
        for (int i = 0; i < TILES * 4; i++) {
            change[0][i / 4][i % 4] *= a.scale * s[0][i / 4][i % 4];
            sum[i % 4 / 2] += change[0][i / 4][i % 4];
        }
        add_weighted<width>(result, change, traffic.tile(step, 1));
    }
    place_in_block<score_shape> lane;
    const float one[2] = {1, 1};
    UNROLL
    for (int half = 0; half < 2; half++) {
        float all = row_sum(sum[half]);
        int token = traffic.first + lane.sum_row(0, 2 * half);
        const float *o = a.o + place.output + token * output_stride(a);
        UNROLL
        for (int i = 0; i < width / 4; i++) {
            int channel = i / 2 * 8 + 2 * lane.member + i % 2;
            if (token < a.tokens && channel < a.width)
                result[i / 8][0][i / 2 % TILES][2 * half + i % 2] -= all * o[channel];
        }
    }
    store_rows<width>(result, one, a.result + place.output, output_stride(a), a, traffic.first);
}

/* ---- launching ---- */
static void launch(void (*kernel)(attention), int shared_bytes, const attention &a,
                   cudaStream_t stream)
{
    unsigned blocks = (unsigned)(a.pictures * a.heads * ceil_divide(a.tokens, OWN));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    LAUNCH(kernel, blocks, THREADS, shared_bytes, stream, a);
}

void launch_narrow_attention(const attention &a, cudaStream_t stream)
{
    if (a.width <= 32)
        launch(attend<32>, traffic<32, 1, 2>::shared_bytes, a, stream);
    else if (a.width <= 64)
        launch(attend<64>, traffic<64, 1, 2>::shared_bytes, a, stream);
    else
        launch(attend<128>, traffic<128, 1, 2>::shared_bytes, a, stream);
}

void launch_narrow_backward(const attention &a, cudaStream_t stream)
{
    if (a.width <= 32) {
        launch(attend_back_queries<32>, traffic<32, 2, 2>::shared_bytes, a, stream);
        launch(attend_back_keys<32>, traffic<32, 2, 2>::shared_bytes, a, stream);
    } else {
        launch(attend_back_queries<64>, traffic<64, 2, 2>::shared_bytes, a, stream);
        launch(attend_back_keys<64>, traffic<64, 2, 2>::shared_bytes, a, stream);
    }
}

void launch_narrow_jvp(const attention &a, cudaStream_t stream)
{
    if (a.width <= 32)
        launch(attend_jvp<32>, traffic<32, 2, 4>::shared_bytes, a, stream);
    else
        launch(attend_jvp<64>, traffic<64, 2, 4>::shared_bytes, a, stream);
}
