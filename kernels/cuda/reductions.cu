/* Sums in double: one per block of a fixed share of the elements, folded by one block. */
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/tiles.cuh"

/* ---- to a scalar ---- */
constexpr size_t SUM_BLOCKS = 1024, SUM_SHARE = REDUCE_THREADS * PACK * 2;

static unsigned sum_blocks(size_t count)
{
    return (unsigned)min(ceil_divide(count, SUM_SHARE), SUM_BLOCKS);
}

static size_t sum_workspace(const kernel_call *call)
{
    return sum_blocks((size_t)tensor_elements(&call->input[0])) * sizeof(double);
}

enum sum { SUM_SQUARES, SUM_DISTANCES, SUM_PRODUCTS }; /* of (a-b)^2, |a-b|, a*b */

template <unsigned WIDTH>
__device__ static inline double sum_pack(const float *a, const float *b, sum kind)
{
    pack<WIDTH> x = load_pack<WIDTH>(a), y = load_pack<WIDTH>(b);
    double sum = 0;
    for (unsigned k = 0; k < WIDTH; k++) {
        double d = (double)x.at[k] - y.at[k];
        sum += kind == SUM_SQUARES     ? d * d
               : kind == SUM_DISTANCES ? fabs(d)
                                       : (double)x.at[k] * y.at[k];
    }
    return sum;
}

/* Each block's sum. */
__global__ void __launch_bounds__(REDUCE_THREADS)
    sum_shares(const float *a, const float *b, size_t count, sum kind, double *parts)
{
    __shared__ double shared[REDUCE_WARPS];
    double sum = 0;
    size_t i = ((size_t)blockIdx.x * REDUCE_THREADS + threadIdx.x) * PACK;
    for (; i < count; i += (size_t)gridDim.x * REDUCE_THREADS * PACK)
        if (i + PACK <= count)
            sum += sum_pack<PACK>(a + i, b + i, kind);
        else
            for (size_t j = i; j < count; j++)
                sum += sum_pack<1>(a + j, b + j, kind);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(REDUCE_THREADS)
    fold_shares(const double *parts, unsigned count, double divisor, bool root, float *result)
{
    __shared__ double shared[REDUCE_WARPS];
    double sum = 0;
    for (unsigned i = threadIdx.x; i < count; i += REDUCE_THREADS)
        sum += parts[i];
    sum = block_sum(sum, shared) / divisor;
    if (threadIdx.x == 0)
        *result = (float)(root ? sqrt(sum) : sum);
}

struct summation {
    const float *a, *b;
    sum kind;
    bool root;
    double divisor;
};

static void sum_up(const kernel_call *call, const summation &s)
{
    size_t count = (size_t)tensor_elements(&call->input[0]);
    double *parts = static_cast<double *>(call->workspace);
    LAUNCH(sum_shares, sum_blocks(count), REDUCE_THREADS, 0, stream_of(call), s.a, s.b, count,
           s.kind, parts);
    LAUNCH(fold_shares, 1, REDUCE_THREADS, 0, stream_of(call), parts, sum_blocks(count), s.divisor,
           s.root, output_of(call, 0));
}

size_t cuda_mean_squared_error_workspace(const kernel_call *call)
{
    return sum_workspace(call);
}

void cuda_mean_squared_error(const kernel_call *call)
{
    double count = (double)tensor_elements(&call->input[0]);
    sum_up(call, {input_of(call, 0), input_of(call, 1), SUM_SQUARES, false, count});
}

size_t cuda_mean_absolute_error_workspace(const kernel_call *call)
{
    return sum_workspace(call);
}

void cuda_mean_absolute_error(const kernel_call *call)
{
    double count = (double)tensor_elements(&call->input[0]);
    sum_up(call, {input_of(call, 0), input_of(call, 1), SUM_DISTANCES, false, count});
}

size_t cuda_l2_norm_workspace(const kernel_call *call)
{
    return sum_workspace(call);
}

void cuda_l2_norm(const kernel_call *call)
{
    sum_up(call, {input_of(call, 0), input_of(call, 0), SUM_PRODUCTS, true, 1});
}

size_t cuda_dot_workspace(const kernel_call *call)
{
    return sum_workspace(call);
}

void cuda_dot(const kernel_call *call)
{
    sum_up(call, {input_of(call, 0), input_of(call, 1), SUM_PRODUCTS, false, 1});
}

/* ---- and back ---- */
struct difference_function {
    const float *g;
    double weight;
    float factor;
    __device__ bool prepare()
    {
        factor = (float)(weight * *g);
        return true;
    }
    __device__ void operator()(const float x[2], float dx[1]) const
    {
        dx[0] = factor * (x[0] - x[1]);
    }
};

struct sign_function {
    const float *g;
    double weight;
    float factor;
    __device__ bool prepare()
    {
        factor = (float)(weight * *g);
        return true;
    }
    __device__ void operator()(const float x[2], float dx[1]) const
    {
        dx[0] = factor * (float)((x[0] > x[1]) - (x[0] < x[1]));
    }
};

struct norm_function {
    const float *g, *norm;
    float factor;
    __device__ bool prepare()
    {
        factor = *norm == 0 ? 0 : *g / *norm;
        return true;
    }
    __device__ void operator()(const float x[1], float dx[1]) const
    {
        dx[0] = factor * x[0];
    }
};

void cuda_mean_squared_error_backward(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->input[1]);
    map(call, difference_function{input_of(call, 0), 2 / (double)count, 0},
        map_arrays<2, 1>{{input_of(call, 1), input_of(call, 2)}, {output_of(call, 0)}, count});
}

void cuda_mean_absolute_error_backward(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->input[1]);
    map(call, sign_function{input_of(call, 0), 1 / (double)count, 0},
        map_arrays<2, 1>{{input_of(call, 1), input_of(call, 2)}, {output_of(call, 0)}, count});
}

void cuda_l2_norm_backward(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->input[1]);
    map(call, norm_function{input_of(call, 0), input_of(call, 2), 0},
        map_arrays<1, 1>{{input_of(call, 1)}, {output_of(call, 0)}, count});
}

/* ---- over the pixels ---- */
constexpr unsigned SPATIAL_RUNS = 64;

/* A tile's sum of each channel: parts[N][runs][channels]. */
template <unsigned WIDTH, typename T>
__global__ void __launch_bounds__(TILE_THREADS) sum_tile(tiling t, const T *x, double *parts)
{
    __shared__ double sums[PACK][TILE_THREADS + 4]; /* a pack's sums in different banks */
    tile_place place = place_in_tile(t);
    double sum[WIDTH] = {};
    for (unsigned p = place.first + place.row; place.working && p < place.end; p += t.rows) {
        pack<WIDTH> value = load_pack<WIDTH>(x + tile_offset(t, place, p));
        for (unsigned k = 0; k < WIDTH; k++)
            sum[k] += value.at[k];
    }
    for (unsigned k = 0; k < WIDTH; k++)
        sums[k][threadIdx.x] = sum[k];
    __syncthreads();
    unsigned channel;
    if (!tile_channel(t, &channel))
        return;
    double total = 0;
    for (unsigned row = 0; row < t.rows; row++)
        total += sums[threadIdx.x % WIDTH][row * t.columns + threadIdx.x / WIDTH];
    parts[((size_t)blockIdx.z * t.runs + blockIdx.x) * t.channels + channel] = total;
}

template <typename T>
__global__ void __launch_bounds__(TILE_THREADS) fold_tiles(tiling t, const double *parts, T *y)
{
    unsigned channel = blockIdx.x * TILE_THREADS + threadIdx.x;
    if (channel >= t.channels)
        return;
    double sum = 0;
    for (unsigned run = 0; run < t.runs; run++)
        sum += parts[((size_t)blockIdx.y * t.runs + run) * t.channels + channel];
    store_one(y + (size_t)blockIdx.y * t.channels + channel, (float)sum);
}

size_t cuda_sum_spatial_workspace(const kernel_call *call)
{
    tiling t = tiling_of(&call->input[0], SPATIAL_RUNS);
    return (size_t)call->input[0].shape[0] * t.runs * t.channels * sizeof(double);
}

template <typename T> static void sum_spatial(const kernel_call *call)
{
    const tensor *x = &call->input[0];
    tiling t = tiling_of(x, SPATIAL_RUNS);
    double *parts = static_cast<double *>(call->workspace);
    LAUNCH_TILES(sum_tile, T, t, x, stream_of(call), t, input_of<T>(call, 0), parts);
    LAUNCH(fold_tiles<T>, dim3(ceil_divide(t.channels, TILE_THREADS), (unsigned)x->shape[0]),
           TILE_THREADS, 0, stream_of(call), t, parts, output_of<T>(call, 0));
}

void cuda_sum_spatial(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], sum_spatial, call);
}

/* The pictures' tiles fold as one picture's. */
size_t cuda_sum_pixels_workspace(const kernel_call *call)
{
    return cuda_sum_spatial_workspace(call);
}

void cuda_sum_pixels(const kernel_call *call)
{
    const tensor *x = &call->input[0];
    tiling t = tiling_of(x, SPATIAL_RUNS), all = t;
    all.runs *= (unsigned)x->shape[0];
    double *parts = static_cast<double *>(call->workspace);
    LAUNCH_TILES(sum_tile, float, t, x, stream_of(call), t, input_of(call, 0), parts);
    LAUNCH(fold_tiles<float>, ceil_divide(t.channels, TILE_THREADS), TILE_THREADS, 0,
           stream_of(call), all, parts, output_of(call, 0));
}
