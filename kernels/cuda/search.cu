/* Nonlinear conjugate gradients (Polak-Ribiere+), with a step that is taken back in part where the
 * energy rose. What a launch decides for all elements the next one reads. */
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

/* Of a step after which the energy is higher than before. */
constexpr float SHORTENING = 0.25f;
/* The energy is a sum in floating point: a rise within its rounding is none. */
constexpr double ENERGY_TOLERANCE = 1e-6;

/* ---- direction ---- */
constexpr unsigned PRODUCTS_BLOCKS = 256;

struct products {
    double square, old_square, overlap, slope; /* <g,g>, <p,p>, <g,p>, <g,d>; p: the previous g */
};

/* The workspace: the decision, then the products of each block. */
struct direction_space {
    float *beta;
    products *parts;
    unsigned blocks;
};

static direction_space direction_space_of(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->input[1]);
    unsigned blocks =
        (unsigned)min(ceil_divide<size_t>(count, REDUCE_THREADS), (size_t)PRODUCTS_BLOCKS);
    products *parts = static_cast<products *>(call->workspace);
    return {reinterpret_cast<float *>(parts + blocks), parts, blocks};
}

__device__ static inline products block_products(const products &p, double shared[4][REDUCE_WARPS])
{
    return {block_sum(p.square, shared[0]), block_sum(p.old_square, shared[1]),
            block_sum(p.overlap, shared[2]), block_sum(p.slope, shared[3])};
}

__global__ void __launch_bounds__(REDUCE_THREADS)
    multiply_directions(const float *g, const float *previous, const float *d, size_t count,
                        products *parts)
{
    __shared__ double shared[4][REDUCE_WARPS];
    products sum = {0, 0, 0, 0};
    size_t i = (size_t)blockIdx.x * REDUCE_THREADS + threadIdx.x;
    for (; i < count; i += (size_t)gridDim.x * REDUCE_THREADS) {
        double gradient = g[i], old = previous[i];
        sum.square += gradient * gradient;
        sum.old_square += old * old;
        sum.overlap += gradient * old;
        sum.slope += gradient * d[i];
    }
    sum = block_products(sum, shared);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

__device__ static inline bool accepts(float energy, const float *search)
{
    double base = search[SEARCH_ENERGY];
    return isfinite(energy) &&
           (search[SEARCH_FRESH] > 1 || energy <= base + ENERGY_TOLERANCE * fabs(base));
}

__device__ static inline void decide_direction(float energy, const products &p, float *search,
                                               float *result)
{
    search[SEARCH_ACCEPTED] = accepts(energy, search);
    if (search[SEARCH_ACCEPTED] == 0)
        return;
    bool afresh = search[SEARCH_FRESH] != 0 || p.old_square == 0;
    double beta = afresh ? 0 : fmax((p.square - p.overlap) / p.old_square, 0.0);
    double slope = -p.square + (beta > 0 ? beta * p.slope : 0);
    if (slope >= 0) {
        beta = 0;
        slope = -p.square;
    }
    *result = (float)beta;
    search[SEARCH_ENERGY] = energy;
    search[SEARCH_SLOPE] = (float)slope;
    search[SEARCH_FRESH] = 0;
}

__global__ void __launch_bounds__(REDUCE_THREADS)
    choose_direction(const float *energy, const products *parts, unsigned count, float *search,
                     float *beta)
{
    __shared__ double shared[4][REDUCE_WARPS];
    products sum = {0, 0, 0, 0};
    if (threadIdx.x < count)
        sum = parts[threadIdx.x];
    sum = block_products(sum, shared);
    if (threadIdx.x == 0)
        decide_direction(*energy, sum, search, beta);
}

struct direction_function {
    const float *search, *chosen;
    float beta;
    __device__ bool prepare()
    {
        beta = *chosen;
        return search[SEARCH_ACCEPTED] != 0;
    }
    /* x: g, d; y: previous g, d. A first d is undefined. */
    __device__ void operator()(const float x[2], float y[2]) const
    {
        y[0] = x[0];
        y[1] = (beta > 0 ? beta * x[1] : 0) - x[0];
    }
};

size_t cuda_search_direction_workspace(const kernel_call *call)
{
    return direction_space_of(call).blocks * sizeof(products) + sizeof(float);
}

void cuda_search_direction(const kernel_call *call)
{
    const float *g = input_of(call, 1);
    float *previous = output_of(call, 0), *d = output_of(call, 1), *search = output_of(call, 2);
    size_t count = (size_t)tensor_elements(&call->input[1]);
    direction_space space = direction_space_of(call);
    LAUNCH(multiply_directions, space.blocks, REDUCE_THREADS, 0, stream_of(call), g, previous, d,
           count, space.parts);
    LAUNCH(choose_direction, 1, REDUCE_THREADS, 0, stream_of(call), input_of(call, 0), space.parts,
           space.blocks, search, space.beta);
    map(call, direction_function{search, space.beta, 0},
        map_arrays<2, 2>{{g, d}, {previous, d}, count});
}

/* ---- step ---- */
__device__ static inline float step_length(const float *search, float curvature)
{
    if (search[SEARCH_ACCEPTED] == 0)
        return search[SEARCH_STEP] * SHORTENING;
    return curvature > 0 ? -search[SEARCH_SLOPE] / curvature : 0;
}

struct step_function {
    const float *search, *curvature;
    bool accepted;
    float step;
    __device__ bool prepare()
    {
        accepted = search[SEARCH_ACCEPTED] != 0;
        step = step_length(search, *curvature);
        return true;
    }
    /* x: z, base, d; y: z, base */
    __device__ void operator()(const float x[3], float y[2]) const
    {
        y[1] = accepted ? x[0] : x[1];
        y[0] = y[1] + step * x[2];
    }
};

__global__ void record_step(const float *curvature, float *search)
{
    search[SEARCH_STEP] = step_length(search, *curvature);
    if (search[SEARCH_ACCEPTED] == 0) {
        search[SEARCH_SHORTENED] += 1;
        search[SEARCH_FRESH] = 1;
    }
}

void cuda_search_step(const kernel_call *call)
{
    float *z = output_of(call, 0), *base = output_of(call, 1), *search = output_of(call, 2);
    const float *curvature = input_of(call, 3);
    map(call, step_function{search, curvature, false, 0},
        map_arrays<3, 2>{
            {z, base, input_of(call, 2)}, {z, base}, (size_t)tensor_elements(&call->input[0])});
    LAUNCH(record_step, 1, 1, 0, stream_of(call), curvature, search);
}
