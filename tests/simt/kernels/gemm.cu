/* A small product on the tensor cores as kernels write it: tiles of 32 x 32 by four warps, three
 * stages of cp.async with zeros beyond the edges, ldmatrix from padded rows, mma in tf32. */
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/kernels/kernels.h"
#include "tests/simt/kernels/buffer.h"

#include <string.h>

enum {
    TILE = 32,
    DEPTH = 16,
    PITCH = DEPTH + 4, /* rows of 80 bytes: eight of them touch all banks once */
    STAGES = 3,
    THREADS = 128,
    VECTOR = 4,
    VECTORS_PER_ROW = DEPTH / VECTOR
};

struct operands {
    const float *a, *b;
    float *c;
    int m, n, k;
};

typedef float stage[2][TILE][PITCH]; /* of A, of B */

__device__ static inline void fetch_rows(float (*tile)[PITCH], const float *matrix, int first_row,
                                         int rows, int first_column, int columns)
{
    int row = threadIdx.x / VECTORS_PER_ROW, column = threadIdx.x % VECTORS_PER_ROW * VECTOR;
    bool inside = first_row + row < rows && first_column + column < columns;
    const float *source =
        inside ? matrix + (size_t)(first_row + row) * columns + first_column + column : matrix;
    copy_async_16(&tile[row][column], source, inside ? 16 : 0);
}

__device__ static inline void fetch(stage &stage, const operands &operands, int step)
{
    if (step * DEPTH < operands.k) {
        fetch_rows(stage[0], operands.a, blockIdx.y * TILE, operands.m, step * DEPTH, operands.k);
        fetch_rows(stage[1], operands.b, blockIdx.x * TILE, operands.n, step * DEPTH, operands.k);
    }
    copy_async_commit();
}

__device__ static inline void round_all(uint32_t *fragment, int count)
{
    for (int i = 0; i < count; i++)
        fragment[i] = to_tf32(__uint_as_float(fragment[i]));
}

/* A warp's 16 x 16 of the product. */
__device__ static inline void multiply_stage(float c[2][4], const stage &stage)
{
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float(*a)[PITCH] = &stage[0][warp / 2 * 16], (*b)[PITCH] = &stage[1][warp % 2 * 16];
    for (int k = 0; k < DEPTH; k += 8) {
        uint32_t a_fragment[4], b_fragment[4];
        load_matrix_x4(a_fragment, &a[lane % 16][k + lane / 16 * 4]);
        /* columns 0-7: k 0-3, k 4-7; columns 8-15: the same */
        load_matrix_x4(b_fragment, &b[lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 4]);
        round_all(a_fragment, 4);
        round_all(b_fragment, 4);
        mma_m16n8k8_tf32(c[0], a_fragment, &b_fragment[0]);
        mma_m16n8k8_tf32(c[1], a_fragment, &b_fragment[2]);
    }
}

__device__ static inline void store_tile(const float c[2][4], const operands &operands)
{
    unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 4; i++) {
            int row = blockIdx.y * TILE + warp / 2 * 16 + lane / 4 + 8 * (i / 2);
            int column = blockIdx.x * TILE + warp % 2 * 16 + 8 * half + 2 * (lane % 4) + i % 2;
            if (row < operands.m && column < operands.n)
                operands.c[(size_t)row * operands.n + column] = c[half][i];
        }
}

__global__ void __launch_bounds__(THREADS) gemm(operands operands)
{
    extern __shared__ __align__(16) float dynamic_shared[];
    stage *stages = reinterpret_cast<stage *>(dynamic_shared);
    float c[2][4] = {};
    int steps = (operands.k + DEPTH - 1) / DEPTH;
    for (int step = 0; step < STAGES - 1; step++)
        fetch(stages[step], operands, step);
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads(); /* all see this stage, and have left the one that is fetched next */
        fetch(stages[(step + STAGES - 1) % STAGES], operands, step + STAGES - 1);
        multiply_stage(c, stages[step % STAGES]);
    }
    copy_async_wait_all();
    store_tile(c, operands);
}

void run_gemm(int m, int n, int k, const float *a, const float *b, float *c)
{
    buffer<float> a_buffer(a, (size_t)m * k), b_buffer(b, (size_t)n * k), c_buffer((size_t)m * n);
    dim3 grid((n + TILE - 1) / TILE, (m + TILE - 1) / TILE);
    operands operands = {a_buffer.data, b_buffer.data, c_buffer.data, m, n, k};
    LAUNCH(gemm, grid, THREADS, STAGES * sizeof(stage), 0, operands);
    memcpy(c, c_buffer.read().data(), (size_t)m * n * sizeof *c);
}
