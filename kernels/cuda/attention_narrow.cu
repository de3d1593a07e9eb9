/* Attention of narrow heads: a block owns 64 queries (for dk and dv: keys) and meets the others in
 * tiles of 32 that stream through shared memory. A warp has 16 rows of scores in registers, where
 * they become probabilities and, as they lie, the first operand of the next product. Nobody but the
 * owner adds to a row of a result.
 *
 * Tiles are [token][channel] with quad q of token t at q ^ (t & 7): as an operand along the
 * channels a 16-byte access takes the same four quads of two tokens, as one across the tokens a
 * 4-byte access takes eight channels of tokens 2 apart, and neither meets a bank twice. In bf16 the
 * pieces are octets, ldmatrix takes eight tokens' across, and the number that moves them is the
 * token's with its lowest bit first: the two tokens of an access along the channels are then apart
 * too. */
#include "kernels/cuda/attention.cuh"

#include <math.h>

enum { OWN = 64, STREAM = 32, CHANNELS = 32 /* of a slice of a head */ };
typedef block_shape<OWN, STREAM, 16, STREAM> score_shape;
typedef score_shape::sums scores; /* [0][tile][..]; also a slice of a result's rows */
enum { THREADS = score_shape::threads, TILES = score_shape::column_tiles };
constexpr operand OPERAND = OPERAND_3XTF32;

template <int width, typename T> __device__ __forceinline__ int token_offset(int token, int channel)
{
    constexpr int elements = piece_elements<T>;
    int swizzle = token & 7;
    if constexpr (sizeof(T) == sizeof(bf16))
        swizzle = ((token & 1) * 4 + (token / 2 & 3)) & (width / elements - 1);
    return token * width + ((channel / elements) ^ swizzle) * elements + channel % elements;
}

/* Rows of a head as they lie in memory. */
template <typename T> struct token_rows {
    const T *data;
    size_t stride;
};

template <int width, int tokens, typename T>
__device__ __forceinline__ void copy_tokens(T *tile, const token_rows<T> &rows, const attention &a,
                                            int first)
{
    constexpr int elements = piece_elements<T>;
    UNROLL
    for (int i = threadIdx.x; i < tokens * width / elements; i += THREADS) {
        int token = i / (width / elements), channel = i % (width / elements) * elements;
        int left = first + token < a.tokens ? a.width - channel : 0;
        const T *from = rows.data;
        if (left > 0)
            from += (first + token) * rows.stride + channel;
        copy_piece(tile + token_offset<width, T>(token, channel), from,
                   max(min(left, +elements), 0), a.width % elements == 0);
    }
}

/* What a block owns, and what streams past it, double-buffered. */
template <int width, int owned, int streamed, typename T> struct traffic {
    static constexpr int own_elements = OWN * width, tile_elements = STREAM * width;
    static constexpr int shared_bytes =
        (owned * own_elements + 2 * streamed * tile_elements) * (int)sizeof(T);

    const attention &a;
    T *shared;
    int first; /* of the owned tokens */
    token_rows<T> stream[streamed];

    __device__ __forceinline__ traffic(const attention &a, float *shared, int first)
        : a(a), shared(reinterpret_cast<T *>(shared)), first(first)
    {
    }
    __device__ __forceinline__ void own(int number, const T *data, size_t stride)
    {
        copy_tokens<width, OWN>(shared + number * own_elements, token_rows<T>{data, stride}, a,
                                first);
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
    __device__ __forceinline__ const T *owned_tile(int number) const
    {
        return shared + number * own_elements;
    }
    __device__ __forceinline__ T *tile(int step, int number) const
    {
        return shared + owned * own_elements + (step % 2 * streamed + number) * tile_elements;
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
                *reinterpret_cast<const float4 *>(own + token_offset<width, float>(token, channel));
            rows[i][0] = quad.x, rows[i][1] = quad.y;
            rows[i][2] = quad.z, rows[i][3] = quad.w;
        }
        UNROLL
        for (int c = 0; c < TILES; c++) {
            int token = 8 * c + place.group;
            float4 quad = *reinterpret_cast<const float4 *>(
                tile + token_offset<width, float>(token, channel));
            columns[c][0] = quad.x, columns[c][1] = quad.y;
            columns[c][2] = quad.z, columns[c][3] = quad.w;
        }
        multiply_quads<OPERAND>(s[0], rows, columns);
    }
}

template <int width>
__device__ __forceinline__ void load_channels(uint32_t pairs[4], const bf16 *tile, int token,
                                              int channel)
{
    uint4 words =
        *reinterpret_cast<const uint4 *>(tile + token_offset<width, bf16>(token, channel));
    pairs[0] = words.x, pairs[1] = words.y;
    pairs[2] = words.z, pairs[3] = words.w;
}

template <int width>
__device__ __forceinline__ void multiply_rows(scores &s, const bf16 *own, const bf16 *tile)
{
    place_in_block<score_shape> place;
    ROLLED
    for (int depth = 0; depth < width; depth += CHANNELS) {
        int channel = depth + OCTET * place.member;
        uint32_t rows[2][4], columns[TILES][4];
        UNROLL
        for (int i = 0; i < 2; i++)
            load_channels<width>(rows[i], own, place.row + 8 * i + place.group, channel);
        UNROLL
        for (int c = 0; c < TILES; c++)
            load_channels<width>(columns[c], tile, 8 * c + place.group, channel);
        multiply_octets(s[0], rows, columns);
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
                columns[i / QUAD][i % QUAD] = tile[token_offset<width, float>(token, channel)];
            }
            multiply_quads<OPERAND>(result[slice][0], rows, columns);
        }
    }
}

template <int width>
__device__ __forceinline__ void add_weighted(scores (&result)[width / CHANNELS],
                                             const scores &weights, const bf16 *tile)
{
    static_assert(STREAM == 32, "a lane's number is the token whose row it gives to ldmatrix");
    uint32_t rows[2][4];
    UNROLL
    for (int i = 0; i < TILES; i++) {
        rows[0][i] = pack_bf16(weights[0][i][0], weights[0][i][1]);
        rows[1][i] = pack_bf16(weights[0][i][2], weights[0][i][3]);
    }
    UNROLL
    for (int slice = 0; slice < width / CHANNELS; slice++) {
        uint32_t columns[TILES][4];
        UNROLL
        for (int c = 0; c < TILES; c++)
            load_matrix_x4_transposed(
                columns[c],
                tile + token_offset<width, bf16>(threadIdx.x % 32, slice * CHANNELS + 8 * c));
        multiply_octets(result[slice][0], rows, columns);
    }
}

/* A row's two neighbouring channels, zero where the head has them no more. */
template <typename T>
__device__ __forceinline__ pack<2> channels_of(const T *row, int channel, int width)
{
    pack<2> value = {};
    if (width % 2 == 0 && channel < width)
        value = load_pack<2>(row + channel);
    else {
        UNROLL
        for (int k = 0; k < 2; k++)
            if (channel + k < width)
                value.at[k] = load_one(row + channel + k);
    }
    return value;
}

/* Stores COUNT neighbouring channels of a row, as far as the head has them. */
template <unsigned COUNT, typename T>
__device__ __forceinline__ void store_channels(T *row, int channel, int width,
                                               const pack<COUNT> &value)
{
    if (width % (int)COUNT == 0 && channel < width)
        store_pack(row + channel, value);
    else {
        UNROLL
        for (unsigned k = 0; k < COUNT; k++)
            if (channel + (int)k < width)
                store_one(row + channel + k, value.at[k]);
    }
}

/* Rows of a result, times a factor for each half (rows group and group + 8). */
template <int width, typename T>
__device__ __forceinline__ void store_rows(scores (&result)[width / CHANNELS],
                                           const float factor[2], T *data, size_t stride,
                                           const attention &a, int first)
{
    place_in_block<score_shape> place;
    UNROLL
    for (int i = 0; i < width / 2; i++)
        result[i / 16][0][i / 4 % TILES][i % 4] *= factor[i % 4 / 2];
    UNROLL
    for (int half = 0; half < 2; half++) {
        int token = first + place.sum_row(0, 2 * half);
        T *row = data + token * stride;
        UNROLL
        for (int i = 0; i < width / 8; i += 4 / sizeof(T)) {
            const float *value = &result[i / TILES][0][i % TILES][2 * half];
            if constexpr (sizeof(T) == sizeof(float)) {
                if (token < a.tokens)
                    store_channels<2>(row, 8 * i + 2 * place.member, a.width, {value[0], value[1]});
            } else {
                four_columns four(value, &result[i / TILES][0][i % TILES + 1][2 * half]);
                if (token < a.tokens)
                    store_channels(row, 8 * i + four.column, a.width, four.value);
            }
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

template <int width, typename T>
__global__ void __launch_bounds__(THREADS, 2) attend(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 1, 2, T> traffic(a, dynamic_shared, block_first(a));
    const T *q = static_cast<const T *>(a.qkv) + place.packed;
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
    store_rows<width>(result, factor, static_cast<T *>(a.result) + place.output, output_stride(a),
                      a, traffic.first);
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
template <int width, typename T>
__global__ void __launch_bounds__(THREADS, 2) attend_back_queries(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 2, T> traffic(a, dynamic_shared, block_first(a));
    const T *q = static_cast<const T *>(a.qkv) + place.packed;
    traffic.own(0, q, packed_stride(a));
    traffic.own(1, static_cast<const T *>(a.d_o) + place.output, output_stride(a));
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
    store_rows<width>(result, factor, static_cast<T *>(a.result) + place.packed, packed_stride(a),
                      a, traffic.first);
}

/* Keys' and values' gradients, with rows of keys and columns of queries: sums over queries of
 * scale * p * (<v, d_o> - <d_o, o>) * q, and of p * d_o. */
template <int width, typename T>
__global__ void __launch_bounds__(THREADS, 2) attend_back_keys(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 2, T> traffic(a, dynamic_shared, block_first(a));
    const T *q = static_cast<const T *>(a.qkv) + place.packed;
    traffic.own(0, q + a.width, packed_stride(a));
    traffic.own(1, q + 2 * a.width, packed_stride(a));
    traffic.stream[0] = {q, packed_stride(a)};
    traffic.stream[1] = {static_cast<const T *>(a.d_o) + place.output, output_stride(a)};
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
    T *result = static_cast<T *>(a.result) + place.packed;
    store_rows<width>(keys, factor, result + a.width, packed_stride(a), a, traffic.first);
    store_rows<width>(values, one, result + 2 * a.width, packed_stride(a), a, traffic.first);
}

/* The change of o: sum over keys of p * dv + p * ds * v, less (sum of p * ds) * o. */
template <int width, typename T>
__global__ void __launch_bounds__(THREADS, 2) attend_jvp(const attention a)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    head_place place(a, block_pair(a));
    traffic<width, 2, 4, T> traffic(a, dynamic_shared, block_first(a));
    const T *q = static_cast<const T *>(a.qkv) + place.packed;
    const T *dq = static_cast<const T *>(a.dqkv) + place.packed;
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
        const T *o = static_cast<const T *>(a.o) + place.output + token * output_stride(a);
        UNROLL
        for (int i = 0; i < width / 8 && token < a.tokens; i++) {
            pack<2> output = channels_of(o, 8 * i + 2 * lane.member, a.width);
            float *value = &result[i / TILES][0][i % TILES][2 * half];
            value[0] -= all * output.at[0];
            value[1] -= all * output.at[1];
        }
    }
    store_rows<width>(result, one, static_cast<T *>(a.result) + place.output, output_stride(a), a,
                      traffic.first);
}

/* ---- launching ---- */
static void launch(void (*kernel)(attention), int shared_bytes, const attention &a,
                   cudaStream_t stream)
{
    unsigned blocks = (unsigned)(a.pictures * a.heads * ceil_divide(a.tokens, OWN));
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    LAUNCH(kernel, blocks, THREADS, shared_bytes, stream, a);
}

template <typename T> static void launch_attention(const attention &a, cudaStream_t stream)
{
    if (a.width <= 32)
        launch(attend<32, T>, traffic<32, 1, 2, T>::shared_bytes, a, stream);
    else if (a.width <= 64)
        launch(attend<64, T>, traffic<64, 1, 2, T>::shared_bytes, a, stream);
    else
        launch(attend<128, T>, traffic<128, 1, 2, T>::shared_bytes, a, stream);
}

template <int width, typename T>
static void launch_backward(const attention &a, cudaStream_t stream)
{
    constexpr int shared_bytes = traffic<width, 2, 2, T>::shared_bytes;
    launch(attend_back_queries<width, T>, shared_bytes, a, stream);
    launch(attend_back_keys<width, T>, shared_bytes, a, stream);
}

template <int width, typename T> static void launch_jvp(const attention &a, cudaStream_t stream)
{
    launch(attend_jvp<width, T>, traffic<width, 2, 4, T>::shared_bytes, a, stream);
}

void launch_narrow_attention(const attention &a, cudaStream_t stream)
{
    if (a.element == TYPE_BF16)
        launch_attention<bf16>(a, stream);
    else
        launch_attention<float>(a, stream);
}

void launch_narrow_backward(const attention &a, cudaStream_t stream)
{
    if (a.element == TYPE_BF16)
        a.width <= 32 ? launch_backward<32, bf16>(a, stream) : launch_backward<64, bf16>(a, stream);
    else
        a.width <= 32 ? launch_backward<32, float>(a, stream)
                      : launch_backward<64, float>(a, stream);
}

void launch_narrow_jvp(const attention &a, cudaStream_t stream)
{
    if (a.element == TYPE_BF16)
        a.width <= 32 ? launch_jvp<32, bf16>(a, stream) : launch_jvp<64, bf16>(a, stream);
    else
        a.width <= 32 ? launch_jvp<32, float>(a, stream) : launch_jvp<64, float>(a, stream);
}
