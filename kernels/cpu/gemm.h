/* Small matrix products for attention. Operands are packed and padded with zeros to whole tiles:
 * A in blocks of GEMM_ROWS rows, B and C in panels of GEMM_COLUMNS columns [row][column]. A tile of
 * C stays in registers through a stretch of at most GEMM_DEPTH products, so that its panel of B
 * stays in the first-level cache (cpu-kernels.md section 3). */
#ifndef KERNELS_CPU_GEMM_H
#define KERNELS_CPU_GEMM_H

#include "kernels/cpu/math.h"

enum {
    GEMM_ROWS = VECTOR_BYTES == 64 ? 8 : 6,
    GEMM_COLUMNS = 2 * LANES,
    GEMM_DEPTH = 256,
    GEMM_BLOCKS = 8 /* blocks of A that stay in the second-level cache while B's panels pass */
};

struct gemm_tile {
    vector_f32 row[GEMM_ROWS][2];
};

/* tile += A B over `depth` products; a(r, k) = a[r*row_stride + k*step], b(k, ..) =
 * b[k*GEMM_COLUMNS] */
ALWAYS_INLINE void gemm_multiply(struct gemm_tile *tile, const float *a, int64_t row_stride,
                                 int64_t step, const float *b, int64_t depth)
{
    for (int64_t k = 0; k < depth; k++) {
        vector_f32 b0 = vector_load(b + k * GEMM_COLUMNS);
        vector_f32 b1 = vector_load(b + k * GEMM_COLUMNS + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < GEMM_ROWS; r++) {
            vector_f32 broadcast = vector_set(a[r * row_stride + k * step]);
            tile->row[r][0] += broadcast * b0;
            tile->row[r][1] += broadcast * b1;
        }
    }
}

/* Writes the tile at c, rows `stride` apart, or adds it to what is there. */
ALWAYS_INLINE void gemm_store(const struct gemm_tile *tile, float *c, int64_t stride, bool add)
{
#pragma GCC unroll 8
    for (int r = 0; r < GEMM_ROWS; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            float *p = c + r * stride + v * LANES;
            vector_store(p, add ? vector_load(p) + tile->row[r][v] : tile->row[r][v]);
        }
}

/* C[block][panel] (+)= A[block][depth] B[depth][panel]. A's blocks lie [k][GEMM_ROWS]. */
struct gemm {
    const float *a, *b;
    float *c;
    int64_t blocks, panels, depth;
    int64_t a_stride, b_stride, c_stride; /* from block to block, from panel to panel */
};

static inline void gemm_block(const float *a, const float *b, int64_t depth, float *c, bool add)
{
    struct gemm_tile tile = {0};
    gemm_multiply(&tile, a, 1, GEMM_ROWS, b, depth);
    gemm_store(&tile, c, GEMM_COLUMNS, add);
}

static inline void gemm_run(const struct gemm *g, bool add)
{
    for (int64_t k = 0; k < g->depth; k += GEMM_DEPTH) {
        int64_t depth = g->depth - k < GEMM_DEPTH ? g->depth - k : GEMM_DEPTH;
        for (int64_t first = 0; first < g->blocks; first += GEMM_BLOCKS) {
            int64_t last = g->blocks - first < GEMM_BLOCKS ? g->blocks : first + GEMM_BLOCKS;
            for (int64_t p = 0; p < g->panels; p++)
                for (int64_t m = first; m < last; m++)
                    gemm_block(g->a + m * g->a_stride + k * GEMM_ROWS,
                               g->b + p * g->b_stride + k * GEMM_COLUMNS, depth,
                               g->c + p * g->c_stride + m * GEMM_ROWS * GEMM_COLUMNS, add || k > 0);
        }
    }
}

/* packed[k][lane] = scale * source[k*step + lane*lane_stride], zero from lane `count` on */
static inline void gemm_pack(float *packed, int width, const float *source, int64_t depth,
                             int64_t step, int64_t count, int64_t lane_stride, float scale)
{
    int lanes = count < width ? (int)count : width;
    for (int64_t k = 0; k < depth; k++)
        for (int lane = 0; lane < width; lane++)
            packed[k * width + lane] =
                lane < lanes ? scale * source[k * step + lane * lane_stride] : 0;
}

#endif
