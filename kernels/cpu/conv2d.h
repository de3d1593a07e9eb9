/* What the convolutions share (cpu-kernels.md sections 2 and 3): the register tile, zero pixels for
 * the padding, and the packed forms of a weight {O,I,kh,kw}.
 *
 * WEIGHT_DIRECT            [panel of outputs][tap][input][lane], panels of direct_columns(O) lanes
 * WEIGHT_DIRECT_BACKWARD   the same with outputs and inputs exchanged (taps in their own order)
 * WEIGHT_WINOGRAD          [panel of outputs][36 positions][input][lane], panels of 2*LANES lanes
 * A last panel is filled up with zeros. */
#ifndef KERNELS_CPU_CONV2D_H
#define KERNELS_CPU_CONV2D_H

#include "kernels/cpu/math.h"

#if defined(__x86_64__) && VECTOR_BYTES == 64
enum { TILE_ROWS = 12 };
#else
enum { TILE_ROWS = 6 };
#endif
enum {
    TILE_COLUMNS = 2 * LANES,
    NARROW_ROWS = 12, /* a tile of one vector needs more rows to hide the latency of the sums */
    POSITIONS = 36    /* products of F(4x4, 3x3) */
};

static inline int64_t divide_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* sum[r][v] += a[r][c] * b[c][v] over `depth` channels c; rows lie at a[r], b's rows are
 * vectors*LANES wide. rows and vectors are constants of the caller. */
ALWAYS_INLINE void tile_multiply(int rows, int vectors, const float *const *a, const float *b,
                                 int64_t depth, vector_f32 sum[][2])
{
    for (int64_t c = 0; c < depth; c++) {
        vector_f32 w[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            w[v] = vector_load(b + (c * vectors + v) * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            vector_f32 broadcast = vector_set(a[r][c]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                sum[r][v] += broadcast * w[v];
        }
    }
}

/* The first `count` lanes at p, zeros after them. */
ALWAYS_INLINE vector_f32 load_part(const float *p, int64_t count)
{
    if (count >= LANES)
        return vector_load(p);
    vector_f32 v = {0};
    for (int64_t i = 0; i < count; i++)
        v[i] = p[i];
    return v;
}

ALWAYS_INLINE void store_part(float *p, vector_f32 v, int64_t count)
{
    if (count >= LANES) {
        vector_store(p, v);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        p[i] = v[i];
}

/* Panels of the direct form are one vector wide where the outputs fit into one. */
static inline int direct_columns(int64_t outputs)
{
    return outputs <= LANES ? LANES : TILE_COLUMNS;
}

void ISA_NAME(conv2d_direct)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_direct_workspace)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_direct_bytes)(const int64_t shape[4], bool backward);
void ISA_NAME(conv2d_direct_pack)(const int64_t shape[4], const float *oihw, bool backward,
                                  float *packed, int threads);

void ISA_NAME(conv2d_winograd)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_winograd_workspace)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_winograd_bytes)(const int64_t shape[4]);
void ISA_NAME(conv2d_winograd_pack)(const int64_t shape[4], const float *oihw, float *packed,
                                    int threads);

#endif
