/* Group norm with SiLU in two passes over the picture, and its derivatives likewise. The first
 * pass leaves two numbers per tile and channel, which a block per group folds in double in a fixed
 * order; the second applies them. */
#include "kernels/cuda/math.cuh"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tiles.cuh"

constexpr unsigned MOST_RUNS = 512;

struct grouping {
    tiling t;
    unsigned groups, group; /* group: channels of one */
    bool silu, forward;     /* forward: of the derivatives */
    bool affine;            /* the derivative with respect to gamma and beta */
};

static grouping grouping_of(const kernel_call *call, const tensor *x)
{
    grouping s = {tiling_of(x, MOST_RUNS),
                  (unsigned)call->attributes->group_norm.groups,
                  0,
                  call->attributes->group_norm.silu,
                  false,
                  false};
    s.group = s.t.channels / s.groups;
    return s;
}

/* The workspace: parts[N][runs][channels], then totals[N][groups]. */
static size_t workspace_of(const kernel_call *call, const tensor *x)
{
    grouping s = grouping_of(call, x);
    return (size_t)x->shape[0] * (s.t.runs * s.t.channels + s.groups) * sizeof(float2);
}

static float2 *totals_of(const grouping &s, const tensor *x, void *workspace)
{
    return static_cast<float2 *>(workspace) + (size_t)x->shape[0] * s.t.runs * s.t.channels;
}

__device__ static inline float2 *part_of(const grouping &s, float2 *parts, unsigned channel)
{
    return parts + ((size_t)blockIdx.z * s.t.runs + blockIdx.x) * s.t.channels + channel;
}

/* A tile's two sums of each channel, per row of threads. */
typedef float row_sums[2][TILE_THREADS * PACK];

template <unsigned WIDTH>
__device__ static inline void store_rows(row_sums &sums, const pack<WIDTH> &first,
                                         const pack<WIDTH> &second)
{
    store_pack(&sums[0][threadIdx.x * WIDTH], first);
    store_pack(&sums[1][threadIdx.x * WIDTH], second);
}

__device__ static inline float2 fold_rows(const row_sums &sums, const tiling &t)
{
    float2 total = {0, 0};
    for (unsigned row = 0; row < t.rows; row++) {
        total.x += sums[0][row * t.columns * t.width + threadIdx.x];
        total.y += sums[1][row * t.columns * t.width + threadIdx.x];
    }
    return total;
}

/* The normalisation of a thread's channels, in both passes. */
template <unsigned WIDTH> struct channel_factors {
    pack<WIDTH> mean, reciprocal, gamma, beta;
};

template <unsigned WIDTH>
__device__ static inline channel_factors<WIDTH>
factors_of(const grouping &s, const float2 *statistics, const float *gamma, const float *beta,
           unsigned channel)
{
    channel_factors<WIDTH> factors;
    for (unsigned k = 0; k < WIDTH; k++) {
        float2 group = statistics[blockIdx.z * s.groups + (channel + k) / s.group];
        factors.mean.at[k] = group.x;
        factors.reciprocal.at[k] = group.y;
    }
    factors.gamma = load_pack<WIDTH>(gamma + channel);
    factors.beta = load_pack<WIDTH>(beta + channel);
    return factors;
}

/* ---- forward ---- */

template <unsigned WIDTH>
__device__ static inline void add_deviations(const pack<WIDTH> &value, const pack<WIDTH> &shift,
                                             pack<WIDTH> &sum, pack<WIDTH> &square)
{
    for (unsigned k = 0; k < WIDTH; k++) {
        float d = value.at[k] - shift.at[k];
        sum.at[k] += d;
        square.at[k] += d * d;
    }
}

/* Per channel of a tile the mean and the sum of squared deviations from it. Sums are of x - x0, x0
 * the tile's first pixel: the shift keeps the squares from cancelling. */
template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(TILE_THREADS)
    tile_statistics(grouping s, const T *x, float2 *parts)
{
    __shared__ __align__(16) row_sums sums;
    tile_place place = place_in_tile(s.t);
    if (place.working) {
        pack<WIDTH> shift = load_pack<WIDTH>(x + tile_offset(s.t, place, place.first));
        pack<WIDTH> sum = {}, square = {};
        for (unsigned p = place.first + place.row; p < place.end; p += TILE_STEP * s.t.rows) {
            pack<WIDTH> value[TILE_STEP];
            load_pixels(s.t, place, x, p, value);
            for (unsigned i = 0; i < TILE_STEP; i++)
                if (p + i * s.t.rows < place.end)
                    add_deviations(value[i], shift, sum, square);
        }
        store_rows(sums, sum, square);
    }
    __syncthreads();
    unsigned channel;
    if (!tile_channel(s.t, &channel))
        return;
    float2 total = fold_rows(sums, s.t);
    float mean = total.x / (float)(place.end - place.first);
    float shift = load_one(x + place.picture + (size_t)place.first * s.t.channels + channel);
    *part_of(s, parts, channel) = {shift + mean, fmaxf(total.y - total.x * mean, 0)};
}

/* A group's mean and 1/std: the mean of all parts first, then the deviations from it. */
__global__ void __launch_bounds__(REDUCE_THREADS)
    fold_statistics(grouping s, const float2 *parts, double epsilon, float2 *statistics)
{
    __shared__ double shared[2][REDUCE_WARPS];
    unsigned count = s.t.runs * s.group;
    parts += (size_t)blockIdx.y * s.t.runs * s.t.channels + blockIdx.x * s.group;
    double sum = 0, deviations = 0, n = (double)s.t.pixels * s.group;
    for (unsigned i = threadIdx.x; i < count; i += REDUCE_THREADS) {
        unsigned run = i / s.group, pixels = min(s.t.run, s.t.pixels - run * s.t.run);
        sum += pixels * (double)parts[(size_t)run * s.t.channels + i % s.group].x;
    }
    double mean = block_sum(sum, shared[0]) / n;
    for (unsigned i = threadIdx.x; i < count; i += REDUCE_THREADS) {
        unsigned run = i / s.group, pixels = min(s.t.run, s.t.pixels - run * s.t.run);
        float2 part = parts[(size_t)run * s.t.channels + i % s.group];
        double delta = part.x - mean;
        deviations += part.y + pixels * delta * delta;
    }
    double variance = block_sum(deviations, shared[1]) / n;
    if (threadIdx.x == 0)
        statistics[blockIdx.y * s.groups + blockIdx.x] = {(float)mean,
                                                          (float)(1 / sqrt(variance + epsilon))};
}

template <unsigned WIDTH>
__device__ static inline pack<WIDTH> normalized(const grouping &s, const channel_factors<WIDTH> &f,
                                                pack<WIDTH> value)
{
    for (unsigned k = 0; k < WIDTH; k++) {
        float scale = f.reciprocal.at[k] * f.gamma.at[k];
        float u = (value.at[k] - f.mean.at[k]) * scale + f.beta.at[k];
        value.at[k] = s.silu ? silu_of(u) : u;
    }
    return value;
}

template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(TILE_THREADS)
    normalize_tile(grouping s, const T *x, const float *gamma, const float *beta,
                   const float2 *statistics, T *y)
{
    tile_place place = place_in_tile(s.t);
    if (!place.working)
        return;
    channel_factors<WIDTH> f = factors_of<WIDTH>(s, statistics, gamma, beta, place.channel);
    for (unsigned p = place.first + place.row; p < place.end; p += TILE_STEP * s.t.rows) {
        pack<WIDTH> value[TILE_STEP];
        load_pixels(s.t, place, x, p, value);
        for (unsigned i = 0; i < TILE_STEP; i++)
            value[i] = normalized(s, f, value[i]);
        store_pixels(s.t, place, y, p, value);
    }
}

size_t cuda_group_norm_workspace(const kernel_call *call)
{
    return workspace_of(call, &call->input[0]);
}

template <typename T> static void group_norm(const kernel_call *call)
{
    const tensor *x = &call->input[0];
    grouping s = grouping_of(call, x);
    float2 *parts = static_cast<float2 *>(call->workspace);
    float2 *statistics = output_of<float2>(call, 1);
    LAUNCH_TILES(tile_statistics, T, s.t, x, stream_of(call), s, input_of<T>(call, 0), parts);
    LAUNCH(fold_statistics, dim3(s.groups, (unsigned)x->shape[0]), REDUCE_THREADS, 0,
           stream_of(call), s, parts, call->attributes->group_norm.epsilon, statistics);
    LAUNCH_TILES(normalize_tile, T, s.t, x, stream_of(call), s, input_of<T>(call, 0),
                 input_of(call, 1), input_of(call, 2), statistics, output_of<T>(call, 0));
}

void cuda_group_norm(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], group_norm, call);
}

/* ---- backward and forward derivative ---- */

/* Of y = silu(u), u = v*gamma + beta, v the normalised x: normalisation's own derivative is
 * symmetric: reverse mode takes silu' and gamma before it, forward mode after it. */
template <typename T> struct derivative {
    grouping s;
    const T *d, *x; /* d: the gradient of y, the tangent of x */
    const float *gamma, *beta;
    const float2 *statistics;
    T *result;
};

template <typename T> static derivative<T> derivative_of(const kernel_call *call, bool forward)
{
    grouping s = grouping_of(call, &call->input[1]);
    s.forward = forward;
    return {s,
            input_of<T>(call, 0),
            input_of<T>(call, 1),
            input_of(call, 2),
            input_of(call, 3),
            input_of<float2>(call, 4),
            output_of<T>(call, 0)};
}

/* What a derivative's kernels know of one element. */
struct slope {
    float normalized, before, after; /* factors of d on either side of the normalisation */
};

template <unsigned WIDTH>
__device__ static inline slope slope_at(const grouping &s, const channel_factors<WIDTH> &f,
                                        unsigned k, float x)
{
    float v = (x - f.mean.at[k]) * f.reciprocal.at[k], slope = s.affine ? 1 : f.gamma.at[k];
    if (s.silu)
        slope *= silu_slope(v * f.gamma.at[k] + f.beta.at[k]);
    return {v, s.forward ? 1 : slope, s.forward ? slope : 1};
}

template <unsigned WIDTH>
__device__ static inline void add_derivatives(const grouping &s, const channel_factors<WIDTH> &f,
                                              const pack<WIDTH> &value, const pack<WIDTH> &d,
                                              pack<WIDTH> &sum, pack<WIDTH> &product)
{
    for (unsigned k = 0; k < WIDTH; k++) {
        slope at = slope_at(s, f, k, value.at[k]);
        sum.at[k] += d.at[k] * at.before;
        product.at[k] += d.at[k] * at.before * at.normalized;
    }
}

/* Per channel of a tile the sums of d and of d*v. */
template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(TILE_THREADS) tile_derivatives(derivative<T> b, float2 *parts)
{
    __shared__ __align__(16) row_sums sums;
    const grouping &s = b.s;
    tile_place place = place_in_tile(s.t);
    if (place.working) {
        channel_factors<WIDTH> f =
            factors_of<WIDTH>(s, b.statistics, b.gamma, b.beta, place.channel);
        pack<WIDTH> sum = {}, product = {};
        for (unsigned p = place.first + place.row; p < place.end; p += TILE_STEP * s.t.rows) {
            pack<WIDTH> value[TILE_STEP], d[TILE_STEP]; /* d = 0 beyond the tile adds nothing */
            load_pixels(s.t, place, b.x, p, value);
            load_pixels(s.t, place, b.d, p, d);
            for (unsigned i = 0; i < TILE_STEP; i++)
                add_derivatives(s, f, value[i], d[i], sum, product);
        }
        store_rows(sums, sum, product);
    }
    __syncthreads();
    unsigned channel;
    if (tile_channel(s.t, &channel))
        *part_of(s, parts, channel) = fold_rows(sums, s.t);
}

/* A group's means of d and of d*v. */
__global__ void __launch_bounds__(REDUCE_THREADS)
    fold_derivatives(grouping s, const float2 *parts, float2 *totals)
{
    __shared__ double shared[2][REDUCE_WARPS];
    unsigned count = s.t.runs * s.group;
    parts += (size_t)blockIdx.y * s.t.runs * s.t.channels + blockIdx.x * s.group;
    double sum = 0, product = 0, n = (double)s.t.pixels * s.group;
    for (unsigned i = threadIdx.x; i < count; i += REDUCE_THREADS) {
        float2 part = parts[(size_t)(i / s.group) * s.t.channels + i % s.group];
        sum += part.x;
        product += part.y;
    }
    sum = block_sum(sum, shared[0]);
    product = block_sum(product, shared[1]);
    if (threadIdx.x == 0)
        totals[blockIdx.y * s.groups + blockIdx.x] = {(float)(sum / n), (float)(product / n)};
}

template <unsigned WIDTH>
__device__ static inline pack<WIDTH> derived(const grouping &s, const channel_factors<WIDTH> &f,
                                             const pack<WIDTH> &value, pack<WIDTH> d,
                                             const pack<WIDTH> &sum, const pack<WIDTH> &product)
{
    for (unsigned k = 0; k < WIDTH; k++) {
        slope here = slope_at(s, f, k, value.at[k]);
        float rest = d.at[k] * here.before - sum.at[k] - here.normalized * product.at[k];
        d.at[k] = here.after * f.reciprocal.at[k] * rest;
    }
    return d;
}

template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(TILE_THREADS)
    apply_derivative(derivative<T> b, const float2 *totals)
{
    const grouping &s = b.s;
    tile_place place = place_in_tile(s.t);
    if (!place.working)
        return;
    channel_factors<WIDTH> f = factors_of<WIDTH>(s, b.statistics, b.gamma, b.beta, place.channel);
    pack<WIDTH> sum, product;
    for (unsigned k = 0; k < WIDTH; k++) {
        float2 total = totals[blockIdx.z * s.groups + (place.channel + k) / s.group];
        sum.at[k] = total.x;
        product.at[k] = total.y;
    }
    for (unsigned p = place.first + place.row; p < place.end; p += TILE_STEP * s.t.rows) {
        pack<WIDTH> value[TILE_STEP], d[TILE_STEP];
        load_pixels(s.t, place, b.x, p, value);
        load_pixels(s.t, place, b.d, p, d);
        for (unsigned i = 0; i < TILE_STEP; i++)
            d[i] = derived(s, f, value[i], d[i], sum, product);
        store_pixels(s.t, place, b.result, p, d);
    }
}

template <typename T> static void run_derivative(const kernel_call *call, bool forward)
{
    const tensor *x = &call->input[1];
    derivative<T> b = derivative_of<T>(call, forward);
    float2 *parts = static_cast<float2 *>(call->workspace);
    float2 *totals = totals_of(b.s, x, call->workspace);
    LAUNCH_TILES(tile_derivatives, T, b.s.t, x, stream_of(call), b, parts);
    LAUNCH(fold_derivatives, dim3(b.s.groups, (unsigned)x->shape[0]), REDUCE_THREADS, 0,
           stream_of(call), b.s, parts, totals);
    LAUNCH_TILES(apply_derivative, T, b.s.t, x, stream_of(call), b, totals);
}

size_t cuda_group_norm_backward_workspace(const kernel_call *call)
{
    return workspace_of(call, &call->input[1]);
}

void cuda_group_norm_backward(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], run_derivative, call, false);
}

size_t cuda_group_norm_jvp_workspace(const kernel_call *call)
{
    return workspace_of(call, &call->input[1]);
}

void cuda_group_norm_jvp(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], run_derivative, call, true);
}

/* ---- with respect to gamma and beta ---- */

/* A channel's sums of d and of d*v over all tiles of all pictures. */
__global__ void __launch_bounds__(REDUCE_THREADS)
    fold_affine(grouping s, unsigned pictures, const float2 *parts, float *dgamma, float *dbeta)
{
    unsigned channel = blockIdx.x * REDUCE_THREADS + threadIdx.x;
    if (channel >= s.t.channels)
        return;
    double sum = 0, product = 0;
    for (unsigned tile = 0; tile < pictures * s.t.runs; tile++) {
        float2 part = parts[(size_t)tile * s.t.channels + channel];
        sum += part.x;
        product += part.y;
    }
    dgamma[channel] = (float)product;
    dbeta[channel] = (float)sum;
}

size_t cuda_group_norm_backward_affine_workspace(const kernel_call *call)
{
    return workspace_of(call, &call->input[1]);
}

void cuda_group_norm_backward_affine(const kernel_call *call)
{
    const tensor *x = &call->input[1];
    derivative<float> b = derivative_of<float>(call, false);
    b.s.affine = true;
    float2 *parts = static_cast<float2 *>(call->workspace);
    LAUNCH_TILES(tile_derivatives, float, b.s.t, x, stream_of(call), b, parts);
    LAUNCH(fold_affine, ceil_divide(b.s.t.channels, REDUCE_THREADS), REDUCE_THREADS, 0,
           stream_of(call), b.s, (unsigned)x->shape[0], parts, output_of(call, 0),
           output_of(call, 1));
}
