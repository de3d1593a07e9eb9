/* Bugs of launches and of the block's barrier. */
#include "kernels/cuda/launch.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

enum { THREADS = 128 };

static std::vector<float> reversed(size_t count)
{
    std::vector<float> values = counting<float>(count);
    return std::vector<float>(values.rbegin(), values.rend());
}

template <bool bug> __global__ void missing_barrier(const float *x, float *y)
{
    __shared__ float tile[THREADS];
    tile[threadIdx.x] = x[threadIdx.x];
    if (!bug)
        __syncthreads();
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
}

template <bool bug> __global__ void barrier_in_branch(const float *x, float *y)
{
    __shared__ float tile[THREADS];
    tile[threadIdx.x] = x[threadIdx.x];
    if (bug && threadIdx.x < THREADS / 2)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
    __syncthreads();
}

/* The unequal trip counts leave some threads in the loop's barrier when the others are past it. */
template <bool bug> __global__ void barrier_in_loop(const float *x, float *y)
{
    __shared__ float tile[THREADS];
    int rounds = bug ? 1 + threadIdx.x % 2 : 2;
    for (int i = 0; i < rounds; i++) {
        tile[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
    }
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
    __syncthreads();
}

template <bool bug> __global__ void exit_before_barrier(const float *x, float *y, int count)
{
    __shared__ float tile[THREADS];
    int i = threadIdx.x;
    if (bug && i >= count)
        return;
    tile[i] = i < count ? x[i] : 0;
    __syncthreads();
    if (i < count)
        y[i] = tile[count - 1 - i];
}

/* A second stage that writes a buffer while slow threads still read it. */
template <bool bug> __global__ void double_buffer(const float *x, float *y, int rounds)
{
    __shared__ float stage[2][THREADS];
    float sum = 0;
    for (int i = 0; i < rounds; i++) {
        int now = bug ? 0 : i % 2;
        stage[now][threadIdx.x] = x[i * THREADS + threadIdx.x];
        __syncthreads();
        sum += stage[now][THREADS - 1 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}

template <bool bug> __global__ void shared_copy(const float *x, float *y)
{
    extern __shared__ float dynamic_shared[];
    dynamic_shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = dynamic_shared[THREADS - 1 - threadIdx.x];
}

__global__ void plain_copy(const float *x, float *y)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i];
}

template <typename Kernel> static bool reverses(Kernel kernel)
{
    buffer<float> x(counting<float>(THREADS)), y(THREADS);
    LAUNCH(kernel, 1, THREADS, 0, 0, x.data, y.data);
    return y.equals(reversed(THREADS));
}

static bool run_missing_barrier(bool bug)
{
    return reverses(bug ? missing_barrier<true> : missing_barrier<false>);
}

static bool run_barrier_in_branch(bool bug)
{
    return reverses(bug ? barrier_in_branch<true> : barrier_in_branch<false>);
}

static bool run_barrier_in_loop(bool bug)
{
    return reverses(bug ? barrier_in_loop<true> : barrier_in_loop<false>);
}

static bool run_exit_before_barrier(bool bug)
{
    enum { COUNT = 100 };
    buffer<float> x(counting<float>(COUNT)), y(COUNT);
    LAUNCH((bug ? exit_before_barrier<true> : exit_before_barrier<false>), 1, THREADS, 0, 0, x.data,
           y.data, int(COUNT));
    return y.equals(reversed(COUNT));
}

static bool run_double_buffer(bool bug)
{
    enum { ROUNDS = 3 };
    buffer<float> x(counting<float>(ROUNDS * THREADS)), y(THREADS);
    LAUNCH((bug ? double_buffer<true> : double_buffer<false>), 1, THREADS, 0, 0, x.data, y.data,
           int(ROUNDS));
    std::vector<float> expected(THREADS);
    for (int i = 0; i < ROUNDS * THREADS; i++)
        expected[THREADS - 1 - i % THREADS] += i + 1;
    return y.equals(expected);
}

/* 60 KB want the kernel's consent. */
static bool run_too_much_shared(bool bug)
{
    enum { BYTES = 60 << 10 };
    buffer<float> x(counting<float>(THREADS)), y(THREADS);
    auto kernel = bug ? shared_copy<true> : shared_copy<false>;
    if (!bug)
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    LAUNCH(kernel, 1, THREADS, BYTES, 0, x.data, y.data);
    return (cudaGetLastError() == cudaSuccess) != bug && y.equals(reversed(THREADS));
}

static bool run_plain_copy(dim3 grid, dim3 block)
{
    enum { COUNT = 2048 };
    buffer<float> x(counting<float>(COUNT)), y(COUNT);
    LAUNCH(plain_copy, grid, block, 0, 0, x.data, y.data);
    return cudaGetLastError() == cudaSuccess && y.equals(counting<float>(COUNT));
}

static bool run_too_many_threads(bool bug)
{
    return run_plain_copy(bug ? 1 : 2, bug ? 2048 : 1024);
}

static bool run_bad_grid(bool bug)
{
    return run_plain_copy(bug ? dim3(16, 0) : dim3(16), 128);
}

static bool run_large_grid(bool bug)
{
    return run_plain_copy(bug ? dim3(1, 65536) : dim3(16), 128);
}

const planted_bug bugs_in_blocks[] = {
    {"missing barrier", SIMT_SHARED_RACE, run_missing_barrier},
    {"barrier in a divergent branch", SIMT_BARRIER_DIVERGENCE, run_barrier_in_branch},
    {"barrier in a loop of unequal trips", SIMT_BARRIER_DIVERGENCE, run_barrier_in_loop},
    {"early exit before a barrier", SIMT_BARRIER_EXIT, run_exit_before_barrier},
    {"WAR on a double buffer", SIMT_SHARED_RACE, run_double_buffer},
    {"too much shared memory", SIMT_LAUNCH_SHARED, run_too_much_shared},
    {"too many threads", SIMT_LAUNCH_THREADS, run_too_many_threads},
    {"grid of no blocks", SIMT_LAUNCH_GRID, run_bad_grid},
    {"grid too large in y", SIMT_LAUNCH_GRID, run_large_grid},
};
const int bugs_in_blocks_count = sizeof bugs_in_blocks / sizeof *bugs_in_blocks;
