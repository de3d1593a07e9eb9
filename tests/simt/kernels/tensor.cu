/* The tensor instructions one at a time, their operands' rounding, and the operations of a warp. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

#include <string.h>

static constexpr int LANES = 32, ROWS = 16, COLUMNS = 8;

template <int k, mma_type type>
__device__ static inline void multiply(float c[4], const uint32_t *a, const uint32_t *b)
{
    if constexpr (type == MMA_TF32 && k == 4)
        mma_m16n8k4_tf32(c, a, b);
    else if constexpr (type == MMA_TF32)
        mma_m16n8k8_tf32(c, a, b);
    else if constexpr (type == MMA_BF16 && k == 8)
        mma_m16n8k8_bf16(c, a, b);
    else if constexpr (type == MMA_BF16)
        mma_m16n8k16_bf16(c, a, b);
    else if constexpr (k == 8)
        mma_m16n8k8_f16(c, a, b);
    else
        mma_m16n8k16_f16(c, a, b);
}

template <mma_type type> __device__ static inline uint16_t to_half(float value)
{
    return type == MMA_BF16 ? to_bf16(value) : to_f16(value);
}

template <mma_type type> __device__ static inline uint32_t pack(float low, float high)
{
    return type == MMA_BF16 ? pack_bf16(low, high) : pack_f16(low, high);
}

__device__ static inline void load_accumulator(float c[4], const float *accumulator)
{
    for (int i = 0; i < 4; i++)
        c[i] =
            accumulator[(threadIdx.x / 4 + 8 * (i / 2)) * COLUMNS + 2 * (threadIdx.x % 4) + i % 2];
}

__device__ static inline void store_accumulator(const float c[4], float *accumulator)
{
    for (int i = 0; i < 4; i++)
        accumulator[(threadIdx.x / 4 + 8 * (i / 2)) * COLUMNS + 2 * (threadIdx.x % 4) + i % 2] =
            c[i];
}

/* Fragments straight from the tables. */
template <int k, mma_type type>
__global__ void multiply_plain(const float *a, const float *b, float *accumulator)
{
    unsigned group = threadIdx.x / 4, member = threadIdx.x % 4;
    uint32_t a_fragment[4], b_fragment[2];
    float c[4];
    load_accumulator(c, accumulator);
    if constexpr (type == MMA_TF32) {
        for (int i = 0; i < k / 2; i++)
            a_fragment[i] = to_tf32(a[(group + 8 * (i % 2)) * k + member + 4 * (i / 2)]);
        for (int i = 0; i < k / 4; i++)
            b_fragment[i] = to_tf32(b[(member + 4 * i) * COLUMNS + group]);
    } else {
        for (int i = 0; i < k / 4; i++) {
            const float *pair = &a[(group + 8 * (i % 2)) * k + 2 * member + 8 * (i / 2)];
            a_fragment[i] = pack<type>(pair[0], pair[1]);
        }
        for (int i = 0; i < k / 8; i++) {
            const float *pair = &b[(2 * member + 8 * i) * COLUMNS + group];
            b_fragment[i] = pack<type>(pair[0], pair[COLUMNS]);
        }
    }
    multiply<k, type>(c, a_fragment, b_fragment);
    store_accumulator(c, accumulator);
}

/* The 16-bit types, k = 16, by ldmatrix. */
template <mma_type type, bool transposed>
__global__ void multiply_halves(const float *a, const float *b, float *accumulator)
{
    constexpr int K = 16, B_ROWS = transposed ? K : COLUMNS, B_PITCH = transposed ? COLUMNS : K;
    __shared__ __align__(16) uint16_t a_tile[ROWS][K], b_tile[B_ROWS][B_PITCH];
    unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < ROWS * K; i += LANES)
        a_tile[i / K][i % K] = to_half<type>(a[i]);
    for (unsigned i = lane; i < K * COLUMNS; i += LANES) {
        unsigned row = i / COLUMNS, column = i % COLUMNS;
        b_tile[transposed ? row : column][transposed ? column : row] = to_half<type>(b[i]);
    }
    __syncwarp();
    uint32_t a_fragment[4], b_fragment[2];
    float c[4];
    load_accumulator(c, accumulator);
    load_matrix_x4(a_fragment, &a_tile[lane % 16][lane / 16 * 8]);
    if (transposed)
        load_matrix_x2_transposed(b_fragment, &b_tile[lane % 16][0]);
    else
        load_matrix_x2(b_fragment, &b_tile[lane % 8][lane / 8 % 2 * 8]);
    multiply<K, type>(c, a_fragment, b_fragment);
    store_accumulator(c, accumulator);
}

/* tf32, k = 8: a block of 8 x 4 floats is a matrix of 8 rows of 16 bytes. */
__global__ void multiply_tf32(const float *a, const float *b, float *accumulator)
{
    constexpr int K = 8;
    __shared__ __align__(16) uint32_t a_tile[ROWS][K], b_tile[COLUMNS][K];
    unsigned lane = threadIdx.x;
    for (unsigned i = lane; i < ROWS * K; i += LANES)
        a_tile[i / K][i % K] = to_tf32(a[i]);
    for (unsigned i = lane; i < K * COLUMNS; i += LANES)
        b_tile[i % COLUMNS][i / COLUMNS] = to_tf32(b[i]);
    __syncwarp();
    uint32_t a_fragment[4], b_fragment[2];
    float c[4];
    load_accumulator(c, accumulator);
    load_matrix_x4(a_fragment, &a_tile[lane % 16][lane / 16 * 4]);
    load_matrix_x1(&b_fragment[0], &b_tile[lane % 8][0]);
    load_matrix_x1(&b_fragment[1], &b_tile[lane % 8][4]);
    mma_m16n8k8_tf32(c, a_fragment, b_fragment);
    store_accumulator(c, accumulator);
}

__global__ void convert(const float *values, int count, uint32_t *tf32, uint16_t *bf16,
                        uint16_t *f16)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    tf32[i] = to_tf32(values[i]);
    bf16[i] = to_bf16(values[i]);
    f16[i] = to_f16(values[i]);
}

__global__ void warp_operations(int *results)
{
    int thread = threadIdx.x, value = 100 + thread, i = 0;
    const unsigned all = 0xffffffff;
    int *mine = results + thread;
    mine[WARP_THREADS * i++] = __shfl_sync(all, value, 5);
    mine[WARP_THREADS * i++] = __shfl_sync(all, value, 3, 8);
    mine[WARP_THREADS * i++] = __shfl_up_sync(all, value, 3);
    mine[WARP_THREADS * i++] = __shfl_up_sync(all, value, 3, 8);
    mine[WARP_THREADS * i++] = __shfl_down_sync(all, value, 3);
    mine[WARP_THREADS * i++] = __shfl_down_sync(all, value, 3, 8);
    mine[WARP_THREADS * i++] = __shfl_xor_sync(all, value, 9);
    mine[WARP_THREADS * i++] = __shfl_xor_sync(all, value, 9, 8);
    mine[WARP_THREADS * i++] = __ballot_sync(all, thread % 3 == 0);
    mine[WARP_THREADS * i++] = __any_sync(all, thread == 40);
    mine[WARP_THREADS * i++] = __all_sync(all, thread < 40);
    mine[WARP_THREADS * i++] = __syncthreads_count(thread % 3 == 0);
    mine[WARP_THREADS * i++] = __syncthreads_and(thread < 40);
    mine[WARP_THREADS * i++] = __syncthreads_or(thread == 40);
}

void run_one_mma(mma_type type, int k, fragment_loads loads, const float *a, const float *b,
                 float accumulator[ROWS * COLUMNS])
{
    buffer<float> a_buffer(a, ROWS * k), b_buffer(b, k * COLUMNS),
        c_buffer(accumulator, ROWS * COLUMNS);
    void (*kernel)(const float *, const float *, float *);
    if (loads == LOAD_PLAIN && type == MMA_TF32)
        kernel = k == 4 ? multiply_plain<4, MMA_TF32> : multiply_plain<8, MMA_TF32>;
    else if (loads == LOAD_PLAIN && type == MMA_BF16)
        kernel = k == 8 ? multiply_plain<8, MMA_BF16> : multiply_plain<16, MMA_BF16>;
    else if (loads == LOAD_PLAIN)
        kernel = k == 8 ? multiply_plain<8, MMA_F16> : multiply_plain<16, MMA_F16>;
    else if (type == MMA_TF32)
        kernel = multiply_tf32;
    else if (loads == LOAD_MATRIX)
        kernel =
            type == MMA_BF16 ? multiply_halves<MMA_BF16, false> : multiply_halves<MMA_F16, false>;
    else
        kernel =
            type == MMA_BF16 ? multiply_halves<MMA_BF16, true> : multiply_halves<MMA_F16, true>;
    LAUNCH(kernel, 1, LANES, 0, 0, a_buffer.data, b_buffer.data, c_buffer.data);
    memcpy(accumulator, c_buffer.read().data(), ROWS * COLUMNS * sizeof *accumulator);
}

void run_conversions(const float *values, int count, uint32_t *tf32, uint16_t *bf16, uint16_t *f16)
{
    buffer<float> values_buffer(values, count);
    buffer<uint32_t> tf32_buffer(count);
    buffer<uint16_t> bf16_buffer(count), f16_buffer(count);
    LAUNCH(convert, (count + LANES - 1) / LANES, LANES, 0, 0, values_buffer.data, count,
           tf32_buffer.data, bf16_buffer.data, f16_buffer.data);
    memcpy(tf32, tf32_buffer.read().data(), count * sizeof *tf32);
    memcpy(bf16, bf16_buffer.read().data(), count * sizeof *bf16);
    memcpy(f16, f16_buffer.read().data(), count * sizeof *f16);
}

void run_warp_operations(int results[WARP_RESULTS][WARP_THREADS])
{
    buffer<int> buffer(WARP_RESULTS * WARP_THREADS);
    LAUNCH(warp_operations, 1, WARP_THREADS, 0, 0, buffer.data);
    memcpy(results, buffer.read().data(), WARP_RESULTS * WARP_THREADS * sizeof(int));
}
