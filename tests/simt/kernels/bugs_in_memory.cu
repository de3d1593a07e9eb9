/* Bugs of addresses and of order between threads. */
#include "kernels/cuda/launch.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

enum { THREADS = 64, SIDE = 32 };

/* The halo is one element longer than the bytes asked for. */
__global__ void shared_halo(const float *x, float *y)
{
    extern __shared__ float dynamic_shared[];
    unsigned i = threadIdx.x;
    dynamic_shared[i] = x[i];
    if (i == 0)
        dynamic_shared[THREADS] = x[THREADS];
    __syncthreads();
    y[i] = dynamic_shared[i] + dynamic_shared[i + 1];
}

template <bool bug> __global__ void transpose_tile(const float *x, float *y)
{
    __shared__ float tile[SIDE][SIDE];
    for (int row = 0; row < SIDE; row++)
        tile[row][threadIdx.x + (bug && row == 7)] = x[row * SIDE + threadIdx.x];
    __syncthreads();
    for (int row = 0; row < SIDE; row++)
        y[row * SIDE + threadIdx.x] = tile[threadIdx.x][row];
}

template <bool bug> __global__ void neighbour_sum(const float *x, float *y, int count)
{
    int i = threadIdx.x;
    float right = bug || i + 1 < count ? x[i + 1] : 0;
    y[i] = x[i] + (i + 1 < count ? right : 0);
}

template <bool bug> __global__ void tail(const float *x, float *y, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (bug || i < count)
        y[i] = i < count ? x[i] : 0;
}

__global__ void vector_copy(const float *x, float *y)
{
    reinterpret_cast<float4 *>(y)[threadIdx.x] = reinterpret_cast<const float4 *>(x)[threadIdx.x];
}

template <bool bug> __global__ void unwritten(const float *x, float *y)
{
    __shared__ float tile[2 * THREADS];
    tile[threadIdx.x] = x[threadIdx.x];
    if (!bug)
        tile[THREADS + threadIdx.x] = 0;
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x] + tile[threadIdx.x + THREADS / 2] * 0;
}

/* Each lane of a warp reads what its neighbour wrote. */
template <bool bug> __global__ void warp_rotate(const float *x, float *y)
{
    __shared__ float tile[32];
    tile[threadIdx.x] = x[threadIdx.x];
    if (!bug)
        __syncwarp();
    y[threadIdx.x] = tile[(threadIdx.x + 1) % 32];
}

/* Halves of the warp synchronise apart, and lane 0 reads across. */
template <bool bug> __global__ void half_warp_rotate(const float *x, float *y)
{
    __shared__ float tile[32];
    unsigned lane = threadIdx.x;
    tile[lane] = x[lane];
    __syncwarp(lane < 16 ? 0x0000ffff : 0xffff0000);
    y[lane] = tile[(lane & 16) | ((lane + 1) & 15)];
    if (!bug)
        __syncwarp();
    if (lane == 0)
        y[0] += tile[31] * 0;
}

/* Two warps set a flag: harmless as long as they agree on its value. */
template <bool bug> __global__ void one_word(float *y)
{
    __shared__ float word;
    if (threadIdx.x % 32 == 0)
        word = bug ? 1.0f + threadIdx.x : 1.0f;
    __syncthreads();
    if (threadIdx.x == 0)
        *y = bug ? 1 : word;
}

/* Sixteen-bit halves: a thread reads back its own two, or one of its neighbour's. */
template <bool bug> __global__ void halves(const unsigned short *x, unsigned short *y)
{
    __shared__ unsigned short tile[2 * THREADS];
    unsigned i = threadIdx.x, high = (i + bug) % THREADS;
    tile[2 * i] = x[2 * i];
    tile[2 * i + 1] = x[2 * i + 1];
    y[2 * i] = tile[2 * i];
    y[2 * i + 1] = tile[2 * high + 1];
}

template <bool bug> __global__ void shared_histogram(const unsigned *x, unsigned *y)
{
    __shared__ unsigned bins[8];
    if (threadIdx.x < 8)
        bins[threadIdx.x] = 0;
    __syncthreads();
    if (bug)
        bins[x[threadIdx.x] % 8]++;
    else
        atomicAdd(&bins[x[threadIdx.x] % 8], 1u);
    __syncthreads();
    if (threadIdx.x < 8)
        y[threadIdx.x] = bins[threadIdx.x];
}

template <bool bug> __global__ void global_histogram(const unsigned *x, unsigned *y)
{
    unsigned bin = x[blockIdx.x * blockDim.x + threadIdx.x] % 8;
    if (bug)
        y[bin]++;
    else
        atomicAdd(&y[bin], 1u);
}

/* A filter in place reads what other blocks write. */
template <bool bug> __global__ void filter(const float *x, float *y, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + (i + 1 < count ? x[i + 1] * 0 : 0);
}

/* The last block to come adds the parts of all. */
template <bool bug>
__global__ void last_block_sum(const float *x, float *parts, unsigned *ticket, float *sum)
{
    __shared__ bool last;
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = x[blockIdx.x];
        if (!bug)
            __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float total = 0;
        for (unsigned i = 0; i < gridDim.x; i++)
            total += parts[i];
        *sum = total;
    }
}

static bool run_shared_halo(bool bug)
{
    buffer<float> x(counting<float>(THREADS + 1)), y(THREADS);
    LAUNCH(shared_halo, 1, THREADS, (THREADS + !bug) * sizeof(float), 0, x.data, y.data);
    std::vector<float> expected(THREADS);
    for (int i = 0; i < THREADS; i++)
        expected[i] = 2 * i + 3;
    return y.equals(expected);
}

static bool run_transpose_tile(bool bug)
{
    buffer<float> x(counting<float>(SIDE * SIDE)), y(SIDE * SIDE);
    LAUNCH((bug ? transpose_tile<true> : transpose_tile<false>), 1, SIDE, 0, 0, x.data, y.data);
    std::vector<float> expected(SIDE * SIDE);
    for (int i = 0; i < SIDE * SIDE; i++)
        expected[i] = i % SIDE * SIDE + i / SIDE + 1;
    return y.equals(expected);
}

static bool run_neighbour_sum(bool bug)
{
    buffer<float> x(counting<float>(THREADS)), y(THREADS);
    LAUNCH((bug ? neighbour_sum<true> : neighbour_sum<false>), 1, THREADS, 0, 0, x.data, y.data,
           int(THREADS));
    std::vector<float> expected(THREADS);
    for (int i = 0; i < THREADS; i++)
        expected[i] = i + 1 < THREADS ? 2 * i + 3 : i + 1;
    return y.equals(expected);
}

static bool run_tail(bool bug)
{
    enum { COUNT = 100 };
    buffer<float> x(counting<float>(COUNT)), y(COUNT);
    LAUNCH((bug ? tail<true> : tail<false>), 2, THREADS, 0, 0, x.data, y.data, int(COUNT));
    return y.equals(counting<float>(COUNT));
}

static bool run_vector_copy(bool bug)
{
    std::vector<float> values = counting<float>(4 * THREADS + 4);
    buffer<float> x(values), y(4 * THREADS);
    LAUNCH(vector_copy, 1, THREADS, 0, 0, x.data + (bug ? 1 : 4), y.data);
    return y.equals(std::vector<float>(values.begin() + 4, values.end()));
}

static bool run_unwritten(bool bug)
{
    buffer<float> x(counting<float>(THREADS)), y(THREADS);
    LAUNCH((bug ? unwritten<true> : unwritten<false>), 1, THREADS, 0, 0, x.data, y.data);
    return y.equals(counting<float>(THREADS));
}

static bool run_warp_rotate(bool bug)
{
    buffer<float> x(counting<float>(32)), y(32);
    LAUNCH((bug ? warp_rotate<true> : warp_rotate<false>), 1, 32, 0, 0, x.data, y.data);
    std::vector<float> expected(32);
    for (int i = 0; i < 32; i++)
        expected[i] = (i + 1) % 32 + 1;
    return y.equals(expected);
}

static bool run_half_warp_rotate(bool bug)
{
    buffer<float> x(counting<float>(32)), y(32);
    LAUNCH((bug ? half_warp_rotate<true> : half_warp_rotate<false>), 1, 32, 0, 0, x.data, y.data);
    std::vector<float> expected(32);
    for (int i = 0; i < 32; i++)
        expected[i] = (i & 16) + (i + 1) % 16 + 1;
    return y.equals(expected);
}

static bool run_one_word(bool bug)
{
    buffer<float> y(1);
    LAUNCH((bug ? one_word<true> : one_word<false>), 1, THREADS, 0, 0, y.data);
    return y.equals({1});
}

static bool run_halves(bool bug)
{
    buffer<unsigned short> x(counting<unsigned short>(2 * THREADS)), y(2 * THREADS);
    LAUNCH((bug ? halves<true> : halves<false>), 1, THREADS, 0, 0, x.data, y.data);
    return y.equals(counting<unsigned short>(2 * THREADS));
}

static bool run_shared_histogram(bool bug)
{
    buffer<unsigned> x(counting<unsigned>(THREADS)), y(8);
    LAUNCH((bug ? shared_histogram<true> : shared_histogram<false>), 1, THREADS, 0, 0, x.data,
           y.data);
    return y.equals(std::vector<unsigned>(8, THREADS / 8));
}

static bool run_global_histogram(bool bug)
{
    buffer<unsigned> x(counting<unsigned>(4 * THREADS)), y(8);
    LAUNCH((bug ? global_histogram<true> : global_histogram<false>), 4, THREADS, 0, 0, x.data,
           y.data);
    return y.equals(std::vector<unsigned>(8, 4 * THREADS / 8));
}

static bool run_filter(bool bug)
{
    buffer<float> x(counting<float>(4 * THREADS)), y(4 * THREADS);
    LAUNCH((bug ? filter<true> : filter<false>), 4, THREADS, 0, 0, x.data, bug ? x.data : y.data,
           int(4 * THREADS));
    return (bug ? x : y).equals(counting<float>(4 * THREADS));
}

static bool run_last_block_sum(bool bug)
{
    enum { BLOCKS = 8 };
    buffer<float> x(counting<float>(BLOCKS)), parts(BLOCKS), sum(1);
    buffer<unsigned> ticket(1);
    LAUNCH((bug ? last_block_sum<true> : last_block_sum<false>), BLOCKS, 32, 0, 0, x.data,
           parts.data, ticket.data, sum.data);
    return sum.equals({BLOCKS * (BLOCKS + 1) / 2});
}

static bool run_freed(bool bug)
{
    buffer<float> x(counting<float>(4 * THREADS)), y(4 * THREADS);
    float *gone = nullptr;
    cudaMalloc((void **)&gone, 4 * THREADS * sizeof *gone);
    cudaFree(gone);
    LAUNCH(vector_copy, 1, THREADS, 0, 0, bug ? gone : x.data, y.data);
    return y.equals(counting<float>(4 * THREADS));
}

static bool run_host_pointer(bool bug)
{
    std::vector<float> host(4 * THREADS + 4);
    buffer<float> x(counting<float>(4 * THREADS)), y(4 * THREADS);
    LAUNCH(vector_copy, 1, THREADS, 0, 0, bug ? host.data() : x.data, y.data);
    return y.equals(counting<float>(4 * THREADS));
}

const planted_bug bugs_in_memory[] = {
    {"off-by-one in dynamic shared memory", SIMT_SHARED_BOUNDS, run_shared_halo},
    {"off-by-one in a tile's row", SIMT_ARRAY_BOUNDS, run_transpose_tile},
    {"global read one too far", SIMT_GLOBAL_BOUNDS, run_neighbour_sum},
    {"unguarded tail", SIMT_GLOBAL_BOUNDS, run_tail},
    {"misaligned float4", SIMT_MISALIGNED, run_vector_copy},
    {"uninitialised shared read", SIMT_SHARED_UNWRITTEN, run_unwritten},
    {"race inside a warp", SIMT_SHARED_RACE, run_warp_rotate},
    {"race between halves of a warp", SIMT_SHARED_RACE, run_half_warp_rotate},
    {"two threads writing one word", SIMT_SHARED_RACE, run_one_word},
    {"race for half a word", SIMT_SHARED_RACE, run_halves},
    {"non-atomic histogram in shared memory", SIMT_SHARED_RACE, run_shared_histogram},
    {"non-atomic histogram in global memory", SIMT_GLOBAL_RACE, run_global_histogram},
    {"filter in place across blocks", SIMT_GLOBAL_RACE, run_filter},
    {"last block without a fence", SIMT_GLOBAL_RACE, run_last_block_sum},
    {"read of freed memory", SIMT_GLOBAL_BOUNDS, run_freed},
    {"host pointer in a kernel", SIMT_WILD_ACCESS, run_host_pointer},
};
const int bugs_in_memory_count = sizeof bugs_in_memory / sizeof *bugs_in_memory;
