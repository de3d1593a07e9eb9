/* Bugs of shuffles, ldmatrix and mma. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

#include <string.h>

enum { LANES = 32, HALF = 16 };

/* The sum of the first 16 lanes' values, which only they compute. */
template <unsigned mask> __global__ void half_sum(const int *x, int *y)
{
    if (threadIdx.x < HALF) {
        int value = x[threadIdx.x];
        for (int step = HALF / 2; step; step /= 2)
            value += __shfl_xor_sync(mask, value, step);
        if (threadIdx.x == 0)
            *y = value;
    }
    __syncthreads();
}

template <bool bug> __global__ void shuffle_in_branch(const int *x, int *y)
{
    int value = x[threadIdx.x], other = 0;
    if (bug) {
        if (threadIdx.x % 2)
            other = __shfl_xor_sync(0xffffffff, value, 1);
        __syncthreads();
    } else {
        other = __shfl_xor_sync(0xffffffff, value, 1);
    }
    y[threadIdx.x] = threadIdx.x % 2 ? other : value + 1;
}

/* The upper half takes from the lower, which takes no part when there is a bug. */
template <bool bug> __global__ void shuffle_from_outside(const int *x, int *y)
{
    int value = x[threadIdx.x];
    if (!bug || threadIdx.x >= HALF)
        value = __shfl_sync(bug ? 0xffff0000 : 0xffffffff, value, threadIdx.x % HALF);
    y[threadIdx.x] = value;
}

/* y[16][8] = x[16][8] * identity; the bug takes A's second row group from row g + 7. */
template <bool bug> __global__ void identity_product(const float *x, float *y)
{
    unsigned group = threadIdx.x / 4, member = threadIdx.x % 4, second = group + (bug ? 7 : 8);
    uint32_t a[4] = {to_tf32(x[group * 8 + member]), to_tf32(x[second * 8 + member]),
                     to_tf32(x[group * 8 + member + 4]), to_tf32(x[second * 8 + member + 4])};
    uint32_t b[2] = {to_tf32(member == group), to_tf32(member + 4 == group)};
    float c[4] = {0, 0, 0, 0};
    mma_m16n8k8_tf32(c, a, b);
    for (int i = 0; i < 4; i++)
        y[(group + 8 * (i / 2)) * 8 + 2 * member + i % 2] = c[i];
}

template <bool bug> __global__ void unrounded_product(const float *x, float *y)
{
    unsigned group = threadIdx.x / 4, member = threadIdx.x % 4;
    float value = x[group * 4 + member] * 1.0001f;
    uint32_t a[2] = {bug ? __float_as_uint(value) : to_tf32(value), 0};
    uint32_t b[1] = {to_tf32(member == group)};
    float c[4] = {0, 0, 0, 0};
    mma_m16n8k4_tf32(c, a, b);
    y[group * 8 + 2 * member] = c[0];
    y[group * 8 + 2 * member + 1] = c[1];
}

template <bool bug> __global__ void mma_in_branch(float *y)
{
    uint32_t a[2] = {0, 0}, b[1] = {0};
    float c[4] = {1, 1, 1, 1};
    if (!bug || threadIdx.x < HALF)
        mma_m16n8k8_bf16(c, a, b);
    __syncwarp();
    y[threadIdx.x] = 1;
}

/* Eight rows of 16 bytes, `pitch` bytes apart. */
template <int pitch> __global__ void load_rows(const uint32_t *x, uint32_t *y)
{
    __shared__ __align__(16) unsigned char rows[8 * 48];
    unsigned lane = threadIdx.x;
    *reinterpret_cast<uint32_t *>(rows + lane / 4 * pitch + lane % 4 * 4) = x[lane];
    __syncwarp();
    load_matrix_x1(&y[lane], rows + lane % 8 * pitch);
}

static bool run_half_sum(void (*kernel)(const int *, int *))
{
    buffer<int> x(counting<int>(LANES)), y(1);
    LAUNCH(kernel, 1, LANES, 0, 0, x.data, y.data);
    return y.equals({HALF * (HALF + 1) / 2});
}

static bool run_wide_mask(bool bug)
{
    return run_half_sum(bug ? half_sum<0xffffffff> : half_sum<0x0000ffff>);
}

static bool run_mask_without_caller(bool bug)
{
    return run_half_sum(bug ? half_sum<0x0000fffe> : half_sum<0x0000ffff>);
}

static bool run_shuffle_in_branch(bool bug)
{
    buffer<int> x(counting<int>(LANES)), y(LANES);
    LAUNCH((bug ? shuffle_in_branch<true> : shuffle_in_branch<false>), 1, LANES, 0, 0, x.data,
           y.data);
    std::vector<int> expected(LANES);
    for (int i = 0; i < LANES; i++)
        expected[i] = i % 2 ? i : i + 2;
    return y.equals(expected);
}

static bool run_shuffle_from_outside(bool bug)
{
    buffer<int> x(counting<int>(LANES)), y(LANES);
    LAUNCH((bug ? shuffle_from_outside<true> : shuffle_from_outside<false>), 1, LANES, 0, 0, x.data,
           y.data);
    std::vector<int> expected(LANES);
    for (int i = 0; i < LANES; i++)
        expected[i] = i % HALF + 1;
    return y.equals(expected);
}

static bool run_identity_product(bool bug)
{
    buffer<float> x(counting<float>(16 * 8)), y(16 * 8);
    LAUNCH((bug ? identity_product<true> : identity_product<false>), 1, LANES, 0, 0, x.data,
           y.data);
    return y.equals(counting<float>(16 * 8));
}

static bool run_unrounded_product(bool bug)
{
    buffer<float> x(std::vector<float>(8 * 4, 1)), y(8 * 8);
    LAUNCH((bug ? unrounded_product<true> : unrounded_product<false>), 1, LANES, 0, 0, x.data,
           y.data);
    return y.read()[0] == 1;
}

static bool run_mma_in_branch(bool bug)
{
    buffer<float> y(LANES);
    LAUNCH((bug ? mma_in_branch<true> : mma_in_branch<false>), 1, LANES, 0, 0, y.data);
    return y.equals(std::vector<float>(LANES, 1));
}

static bool run_load_rows(bool bug)
{
    buffer<uint32_t> x(counting<uint32_t>(LANES)), y(LANES);
    LAUNCH((bug ? load_rows<36> : load_rows<48>), 1, LANES, 0, 0, x.data, y.data);
    return y.equals(counting<uint32_t>(LANES));
}

const planted_bug bugs_in_warps[] = {
    {"mask wider than the branch", SIMT_MASK_LANE, run_wide_mask},
    {"mask without the caller", SIMT_MASK_CALLER, run_mask_without_caller},
    {"shuffle in a divergent branch", SIMT_MASK_LANE, run_shuffle_in_branch},
    {"shuffle from a lane outside the mask", SIMT_SHUFFLE_SOURCE, run_shuffle_from_outside},
    {"wrong mma fragment row", SIMT_KIND_COUNT, run_identity_product},
    {"tf32 operand not rounded", SIMT_TENSOR_OPERAND, run_unrounded_product},
    {"mma in a divergent branch", SIMT_TENSOR_DIVERGENCE, run_mma_in_branch},
    {"ldmatrix of misaligned rows", SIMT_MISALIGNED, run_load_rows},
};
const int bugs_in_warps_count = sizeof bugs_in_warps / sizeof *bugs_in_warps;
