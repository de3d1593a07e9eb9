/* Kernels whose memory traffic is known by hand, and one to measure the emulator's speed. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

#include <string.h>

enum { LANES = 32, TAIL = 40 };

__global__ void copy_strided(const float *x, float *y, int stride, int offset, int count)
{
    int i = threadIdx.x;
    if (i < count)
        y[i] = x[i * stride + offset];
}

__global__ void copy_diverged(const float *x, float *y)
{
    float sum = 0;
    if (threadIdx.x % 2)
        sum = x[threadIdx.x];
    y[threadIdx.x] = sum + x[LANES + threadIdx.x];
}

__global__ void sum_many(const float *x, float *y)
{
    float sum = 0;
    for (int i = 0; i < ACCESS_LONG_LOADS; i++)
        sum += x[(i % LANES) * LANES + threadIdx.x];
    y[threadIdx.x] = sum;
}

__global__ void copy_vector(const float4 *x, float4 *y)
{
    y[threadIdx.x] = x[threadIdx.x];
}

template <typename T> __global__ void read_shared(const T *x, T *y, int stride)
{
    __shared__ T words[4 * LANES];
    for (int i = 0; i < 4; i++)
        words[i * LANES + threadIdx.x] = x[i * LANES + threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = words[threadIdx.x * stride];
}

template <int pitch> __global__ void read_column(const float *x, float *y)
{
    __shared__ float tile[LANES][pitch];
    for (int row = 0; row < LANES; row++)
        tile[row][threadIdx.x] = x[row * LANES + threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x][3];
}

template <int pitch> __global__ void read_matrices(const uint4 *x, uint4 *y)
{
    __shared__ __align__(16) unsigned char rows[LANES * pitch];
    *reinterpret_cast<uint4 *>(rows + threadIdx.x * pitch) = x[threadIdx.x];
    __syncthreads();
    uint32_t fragment[4];
    load_matrix_x4(fragment, rows + threadIdx.x * pitch);
    y[threadIdx.x] = make_uint4(fragment[0], fragment[1], fragment[2], fragment[3]);
}

__global__ void sum_blocks(const float *values, float *sums)
{
    enum { THREADS = 256, VALUES = 64 };
    __shared__ float parts[THREADS];
    float sum = 0;
    for (int i = 0; i < VALUES; i++)
        sum += values[i * THREADS + threadIdx.x];
    parts[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned step = THREADS / 2; step; step /= 2) {
        if (threadIdx.x < step)
            parts[threadIdx.x] += parts[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        sums[blockIdx.x] = parts[0];
}

void run_access(access_pattern pattern)
{
    buffer<float> x(counting<float>(LANES * LANES)), y(LANES * LANES);
    const float4 *x4 = reinterpret_cast<const float4 *>(x.data);
    float4 *y4 = reinterpret_cast<float4 *>(y.data);
    const uint4 *rows = reinterpret_cast<const uint4 *>(x.data);
    uint4 *fragments = reinterpret_cast<uint4 *>(y.data);
    int stride = pattern == ACCESS_STRIDED ? 2 : pattern == ACCESS_BROADCAST ? 0 : 1;
    switch (pattern) {
    case ACCESS_TAIL:
        LAUNCH(copy_strided, 1, 2 * LANES, 0, 0, x.data, y.data, stride, 0, int(TAIL));
        break;
    case ACCESS_DIVERGED:
        LAUNCH(copy_diverged, 1, LANES, 0, 0, x.data, y.data);
        break;
    case ACCESS_LONG:
        LAUNCH(sum_many, 1, LANES, 0, 0, x.data, y.data);
        break;
    case ACCESS_VECTOR:
        LAUNCH(copy_vector, 1, LANES, 0, 0, x4, y4);
        break;
    case ACCESS_BANKS_TWO_WAY:
        LAUNCH(read_shared<float>, 1, LANES, 0, 0, x.data, y.data, 2);
        break;
    case ACCESS_COLUMN:
        LAUNCH(read_column<LANES>, 1, LANES, 0, 0, x.data, y.data);
        break;
    case ACCESS_COLUMN_PADDED:
        LAUNCH(read_column<LANES + 1>, 1, LANES, 0, 0, x.data, y.data);
        break;
    case ACCESS_BANKS_VECTOR:
    case ACCESS_BANKS_VECTOR_2:
        LAUNCH(read_shared<float4>, 1, LANES, 0, 0, x4, y4, pattern == ACCESS_BANKS_VECTOR ? 1 : 2);
        break;
    case ACCESS_MATRIX:
        LAUNCH(read_matrices<128>, 1, LANES, 0, 0, rows, fragments);
        break;
    case ACCESS_MATRIX_PADDED:
        LAUNCH(read_matrices<144>, 1, LANES, 0, 0, rows, fragments);
        break;
    default:
        LAUNCH(copy_strided, 1, LANES, 0, 0, x.data, y.data, stride, pattern == ACCESS_MISALIGNED,
               int(LANES));
    }
}

void run_sum(int blocks, const float *values, float *sums)
{
    enum { VALUES = 64 * 256 };
    buffer<float> values_buffer(values, VALUES), sums_buffer(blocks);
    LAUNCH(sum_blocks, blocks, 256, 0, 0, values_buffer.data, sums_buffer.data);
    memcpy(sums, sums_buffer.read().data(), blocks * sizeof *sums);
}
