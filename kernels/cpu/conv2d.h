/* What the convolutions share (cpu-kernels.md sections 2 and 3): the register tile and the packed
 * forms of a weight {O,I,kh,kw}, panels of which are filled up with zeros:
 *
 * - WEIGHT_DIRECT: [panel of outputs][tap][input][lane], panels of TILE_COLUMNS lanes, or LANES
 *   where O fits into them
 * - WEIGHT_DIRECT_BACKWARD: the same with outputs and inputs exchanged (taps in their own order)
 * - WEIGHT_WINOGRAD: [panel of outputs][36 positions][input][lane], panels of TILE_COLUMNS
 * - WEIGHT_WINOGRAD_SMALL, WEIGHT_UPSAMPLE: the same with 16 and 25 positions
 *
 * The other operand, rows of pixels or of transformed tiles, lies in blocks of TILE_ROWS rows,
 * [channel/LINE][row][channel%LINE]: a block is one straight read, its rows are constants apart. */
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
    LINE = 16, /* floats of a cache line */
    PAD_FLOATS = LINE
};

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Floats of a block of TILE_ROWS rows. */
static inline int64_t block_floats(int64_t channels)
{
    return ceil_divide(channels, LINE) * LINE * TILE_ROWS;
}

/* Where a row's line of channels begins, from the first block on; channel is a multiple of LANES.
 */
static inline int64_t row_offset(int64_t row, int64_t channel, int64_t channels)
{
    return row / TILE_ROWS * block_floats(channels) + channel / LINE * LINE * TILE_ROWS +
           row % TILE_ROWS * LINE + channel % LINE;
}

/* What a tile brings into the second-level cache for a later one: the same piece of the block at
 * `a`, and b_lines lines out of every TILE_COLUMNS rows of the weight, b_step floats apart. */
struct ahead {
    const float *a, *b;
    int64_t b_step;
    int b_lines; /* per LINE channels */
};

ALWAYS_INLINE void prefetch(const struct ahead *ahead, int64_t channel)
{
    const float *a = ahead->a + channel * TILE_ROWS;
#pragma GCC unroll 12
    for (int r = 0; r < TILE_ROWS; r++)
        __builtin_prefetch(a + r * LINE, 0, 2);
    const float *b =
        ahead->b + channel / TILE_COLUMNS * ahead->b_step + channel % TILE_COLUMNS * TILE_COLUMNS;
    for (int line = 0; line < ahead->b_lines; line++)
        __builtin_prefetch(b + line * LINE, 0, 2);
}

ALWAYS_INLINE void tile_steps(const float *a, const float *b, int steps,
                              vector_f32 sum[TILE_ROWS][2])
{
    for (int k = 0; k < steps; k++) {
        vector_f32 b0 = vector_load(b + k * TILE_COLUMNS);
        vector_f32 b1 = vector_load(b + k * TILE_COLUMNS + LANES);
#pragma GCC unroll 12
        for (int r = 0; r < TILE_ROWS; r++) {
            vector_f32 broadcast = vector_set(a[r * LINE + k]);
            sum[r][0] += broadcast * b0;
            sum[r][1] += broadcast * b1;
        }
    }
}

/* sum[r] += the block's row r times the panel b, over `depth` channels. */
ALWAYS_INLINE void tile_multiply(const float *a, const float *b, int64_t depth,
                                 const struct ahead *ahead, vector_f32 sum[TILE_ROWS][2])
{
    int64_t whole = depth / LINE * LINE;
    for (int64_t c = 0; c < whole; c += LINE) {
        prefetch(ahead, c);
        tile_steps(a + c * TILE_ROWS, b + c * TILE_COLUMNS, LINE, sum);
    }
    if (whole < depth)
        tile_steps(a + whole * TILE_ROWS, b + whole * TILE_COLUMNS, (int)(depth - whole), sum);
}

/* c[row][lane] = (add: +=) blocks of rows at `a` times one panel of the weight. */
struct product {
    const float *a, *b;
    float *c;
    int64_t blocks, depth, c_stride;
    bool add;
    const float *next_a, *next_b; /* of the product that follows, to be prefetched */
    int64_t next_b_step;
};

static inline void multiply(const struct product *p)
{
    struct ahead ahead = {p->next_a, p->next_b, p->next_b_step,
                          (int)ceil_divide(TILE_COLUMNS, p->blocks)};
    int64_t floats = block_floats(p->depth);
    for (int64_t block = 0; block < p->blocks; block++) {
        vector_f32 sum[TILE_ROWS][2] = {{{0}}};
        float *c = p->c + block * TILE_ROWS * p->c_stride;
        if (p->add)
#pragma GCC unroll 12
            for (int r = 0; r < TILE_ROWS; r++) {
                sum[r][0] = vector_load(c + r * p->c_stride);
                sum[r][1] = vector_load(c + r * p->c_stride + LANES);
            }
        tile_multiply(p->a + block * floats, p->b, p->depth, &ahead, sum);
        ahead.a += floats;
        ahead.b += ahead.b_lines * LINE;
#pragma GCC unroll 12
        for (int r = 0; r < TILE_ROWS; r++) {
            vector_store(c + r * p->c_stride, sum[r][0]);
            vector_store(c + r * p->c_stride + LANES, sum[r][1]);
        }
    }
}

void ISA_NAME(conv2d_direct)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_direct_workspace)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_direct_bytes)(const int64_t shape[4], bool backward);
void ISA_NAME(conv2d_direct_pack)(const int64_t shape[4], const float *oihw, bool backward,
                                  float *packed, int threads);

void ISA_NAME(conv2d_winograd)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_winograd_workspace)(const struct kernel_call *call, bool backward);
size_t ISA_NAME(conv2d_winograd_bytes)(const int64_t shape[4], enum weight_form form);
void ISA_NAME(conv2d_winograd_pack)(const int64_t shape[4], enum weight_form form,
                                    const float *oihw, float *packed, int threads);

#endif
