/* The test kernels' host side, for tests/test_simt.c. */
#ifndef TESTS_SIMT_KERNELS_KERNELS_H
#define TESTS_SIMT_KERNELS_KERNELS_H

#include "tests/simt/report.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A kernel with a bug and its corrected twin. */
struct planted_bug {
    const char *name;
    enum simt_kind kind;   /* SIMT_KIND_COUNT: the bug shows in the result alone */
    bool (*run)(bool bug); /* whether the result is right */
};
extern const struct planted_bug bugs_in_blocks[], bugs_in_memory[], bugs_in_warps[],
    bugs_in_copies[];
extern const int bugs_in_blocks_count, bugs_in_memory_count, bugs_in_warps_count,
    bugs_in_copies_count;

/* One mma of m16n8 and depth k by fragments, accumulator += a * b; a[16][k], b[k][8] row-major.
 * `loads`: by plain loads, by ldmatrix from b stored [n][k], or from [k][n] transposed. */
enum mma_type { MMA_TF32, MMA_BF16, MMA_F16 };
enum fragment_loads { LOAD_PLAIN, LOAD_MATRIX, LOAD_MATRIX_TRANSPOSED };
void run_one_mma(enum mma_type type, int k, enum fragment_loads loads, const float *a,
                 const float *b, float accumulator[16 * 8]);

/* The rounding of ptx.cuh: tf32 as float, bf16 and f16 as bits. */
void run_conversions(const float *values, int count, uint32_t *tf32, uint16_t *bf16, uint16_t *f16);

/* Every shuffle, vote and counting barrier for one thread each of a block of 64 with lane values
 * 100 + thread; results[test][thread]. */
enum { WARP_RESULTS = 14, WARP_THREADS = 64 };
void run_warp_operations(int results[WARP_RESULTS][WARP_THREADS]);

/* c[m][n] = a[m][k] * b[n][k]^T through a pipeline of cp.async, ldmatrix and mma; k % 4 == 0. */
void run_gemm(int m, int n, int k, const float *a, const float *b, float *c);

/* One warp, or a few, with a known traffic. */
enum access_pattern {
    ACCESS_COALESCED,      /* y[i] = x[i] */
    ACCESS_STRIDED,        /* y[i] = x[2i] */
    ACCESS_MISALIGNED,     /* y[i] = x[i + 1] */
    ACCESS_VECTOR,         /* float4 */
    ACCESS_BROADCAST,      /* y[i] = x[0] */
    ACCESS_DIVERGED,       /* odd lanes read one value more */
    ACCESS_LONG,           /* ACCESS_LONG_LOADS coalesced loads with no barrier between */
    ACCESS_TAIL,           /* 40 threads */
    ACCESS_BANKS_TWO_WAY,  /* word 2i */
    ACCESS_COLUMN,         /* a column of [32][32] */
    ACCESS_COLUMN_PADDED,  /* of [32][33] */
    ACCESS_BANKS_VECTOR,   /* float4 i */
    ACCESS_BANKS_VECTOR_2, /* float4 2i */
    ACCESS_MATRIX,         /* ldmatrix.x4 of rows of 128 bytes */
    ACCESS_MATRIX_PADDED,  /* of 144 bytes */
};
enum { ACCESS_LONG_LOADS = 1200 };
void run_access(enum access_pattern pattern);

/* Throughput: `blocks` of 256 threads that each add 64 values through shared memory. */
void run_sum(int blocks, const float *values, float *sums);

#ifdef __cplusplus
}
#endif
#endif
