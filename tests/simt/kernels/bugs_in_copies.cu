/* Bugs of cp.async, in one kernel that reverses rounds of 64 floats through a pipeline of two. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

enum { THREADS = 64, ROUNDS = 4 };
enum mistake {
    CORRECT,
    NO_WAIT,
    WAIT_FOR_TOO_FEW,
    NO_COMMIT,
    NO_BARRIER,
    SOURCE_CHANGED,
    SOURCE_TOO_LONG,
};

template <mistake mistake>
__device__ static inline void fetch(float *stage, const float *x, int round)
{
    if (round < ROUNDS)
        copy_async_4(&stage[threadIdx.x], &x[round * THREADS + threadIdx.x],
                     mistake == SOURCE_TOO_LONG ? 8 : 4);
    if (mistake != NO_COMMIT)
        copy_async_commit();
}

template <mistake mistake> __global__ void pipeline(float *x, float *y)
{
    __shared__ float stage[2][THREADS];
    fetch<mistake>(stage[0], x, 0);
    for (int round = 0; round < ROUNDS; round++) {
        fetch<mistake>(stage[(round + 1) % 2], x, round + 1);
        if (mistake == SOURCE_CHANGED)
            x[round * THREADS + threadIdx.x] += 1;
        if (mistake == WAIT_FOR_TOO_FEW)
            copy_async_wait<2>();
        else if (mistake != NO_WAIT)
            copy_async_wait<1>();
        if (mistake != NO_BARRIER)
            __syncthreads();
        y[round * THREADS + threadIdx.x] = stage[round % 2][THREADS - 1 - threadIdx.x];
        __syncthreads();
    }
    copy_async_wait_all();
}

template <bool bug> __global__ void forgotten_copy(const float *x, float *y)
{
    __shared__ float unused[THREADS];
    copy_async_4(&unused[threadIdx.x], &x[threadIdx.x]);
    copy_async_commit();
    y[threadIdx.x] = x[threadIdx.x];
    if (!bug)
        copy_async_wait<0>();
}

/* The last thread's four elements are not all there. */
template <bool bug> __global__ void copy_tail(const float *x, float *y, int count)
{
    __shared__ __align__(16) float tile[4 * THREADS];
    int first = 4 * threadIdx.x, left = count - first;
    copy_async_16(&tile[first], &x[first], bug || left >= 4 ? 16 : 4 * left);
    copy_async_wait_all();
    for (int i = first; i < first + 4; i++)
        y[i] = tile[i];
}

static bool run_pipeline(void (*kernel)(float *, float *))
{
    buffer<float> x(counting<float>(ROUNDS * THREADS)), y(ROUNDS * THREADS);
    LAUNCH(kernel, 1, THREADS, 0, 0, x.data, y.data);
    std::vector<float> expected(ROUNDS * THREADS);
    for (int i = 0; i < ROUNDS * THREADS; i++)
        expected[i] = (i / THREADS + 1) * THREADS - i % THREADS;
    return y.equals(expected);
}

template <mistake mistake> static bool run(bool bug)
{
    return run_pipeline(bug ? pipeline<mistake> : pipeline<CORRECT>);
}

static bool run_forgotten_copy(bool bug)
{
    buffer<float> x(counting<float>(THREADS)), y(THREADS);
    LAUNCH((bug ? forgotten_copy<true> : forgotten_copy<false>), 1, THREADS, 0, 0, x.data, y.data);
    return y.equals(counting<float>(THREADS));
}

static bool run_copy_tail(bool bug)
{
    enum { COUNT = 4 * THREADS - 1 };
    buffer<float> x(counting<float>(COUNT)), y(COUNT + 1);
    LAUNCH((bug ? copy_tail<true> : copy_tail<false>), 1, THREADS, 0, 0, x.data, y.data,
           int(COUNT));
    std::vector<float> expected = counting<float>(COUNT);
    expected.push_back(0);
    return y.equals(expected);
}

const planted_bug bugs_in_copies[] = {
    {"missing cp.async wait", SIMT_ASYNC_WAIT, run<NO_WAIT>},
    {"wait_group with too large N", SIMT_ASYNC_WAIT, run<WAIT_FOR_TOO_FEW>},
    {"cp.async without commit", SIMT_ASYNC_COMMIT, run<NO_COMMIT>},
    {"no barrier after the wait", SIMT_SHARED_RACE, run<NO_BARRIER>},
    {"source changed before the wait", SIMT_ASYNC_SOURCE, run<SOURCE_CHANGED>},
    {"source longer than the destination", SIMT_ASYNC_SIZE, run<SOURCE_TOO_LONG>},
    {"cp.async past the end of its source", SIMT_GLOBAL_BOUNDS, run_copy_tail},
    {"exit with a pending cp.async", SIMT_ASYNC_PENDING, run_forgotten_copy},
};
const int bugs_in_copies_count = sizeof bugs_in_copies / sizeof *bugs_in_copies;
