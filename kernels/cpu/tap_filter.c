/* A dense two-dimensional filter given as a list of taps, and its transpose. Reflection is taken
 * out of the inner loops: the forward filter reads rows padded by the widest tap, the transpose
 * adds into a padded row and folds its ends back. */
#include "kernels/cpu/isa.h"
#include "kernels/reflect.h"

#include <omp.h>
#include <string.h>

void ISA_NAME(tap_filter)(const struct kernel_call *call);
size_t ISA_NAME(tap_filter_workspace)(const struct kernel_call *call);
void ISA_NAME(tap_filter_adjoint)(const struct kernel_call *call);
size_t ISA_NAME(tap_filter_adjoint_workspace)(const struct kernel_call *call);

enum { BLOCK_VECTORS = 4, BLOCK = BLOCK_VECTORS * LANES };

struct taps {
    const int32_t *offset; /* (dy, dx) */
    const float *weight;
    int64_t count;
    int64_t reach_height, reach_width; /* the largest |dy|, |dx| */
};

static struct taps taps_of(const struct kernel_call *call)
{
    struct taps taps = {call->input[1].data, call->input[2].data, call->input[1].shape[2], 0, 0};
    for (int64_t j = 0; j < taps.count; j++) {
        int64_t dy = taps.offset[2 * j], dx = taps.offset[2 * j + 1];
        dy = dy < 0 ? -dy : dy;
        dx = dx < 0 ? -dx : dx;
        taps.reach_height = dy > taps.reach_height ? dy : taps.reach_height;
        taps.reach_width = dx > taps.reach_width ? dx : taps.reach_width;
    }
    return taps;
}

/* Padding that the workspace has room for; wider filters go element by element. */
static bool fits(const struct taps *taps, const int64_t shape[4])
{
    return taps->reach_width <= shape[2];
}

size_t ISA_NAME(tap_filter_workspace)(const struct kernel_call *call)
{
    return 3 * (size_t)tensor_elements(&call->input[0]) * sizeof(float);
}

size_t ISA_NAME(tap_filter_adjoint_workspace)(const struct kernel_call *call)
{
    const int64_t *s = call->output[0].shape;
    return 3 * (size_t)(call->threads * s[2] * s[3]) * sizeof(float);
}

static void pad_row(const float *x, int64_t width, int64_t channels, int64_t pad, float *padded)
{
    memcpy(padded + pad * channels, x, (size_t)(width * channels) * sizeof(float));
    for (int64_t p = 0; p < pad; p++) {
        memcpy(padded + p * channels, x + reflect_index(p - pad, width) * channels,
               (size_t)channels * sizeof(float));
        memcpy(padded + (pad + width + p) * channels,
               x + reflect_index(width + p, width) * channels, (size_t)channels * sizeof(float));
    }
}

/* One output row h from the padded rows of its picture. */
static void filter_padded_row(const struct taps *taps, const float *padded, const int64_t s[4],
                              int64_t h, float *y)
{
    int64_t stride = (s[2] + 2 * taps->reach_width) * s[3], count = s[2] * s[3];
    int64_t i = 0;
    for (; i + BLOCK <= count; i += BLOCK) {
        vector_f32 sum[BLOCK_VECTORS] = {{0}};
        for (int64_t j = 0; j < taps->count; j++) {
            const float *x = padded + reflect_index(h + taps->offset[2 * j], s[1]) * stride +
                             (taps->reach_width + taps->offset[2 * j + 1]) * s[3] + i;
            vector_f32 weight = vector_set(taps->weight[j]);
            for (int v = 0; v < BLOCK_VECTORS; v++)
                sum[v] += weight * vector_load(x + v * LANES);
        }
        for (int v = 0; v < BLOCK_VECTORS; v++)
            vector_store(y + i + v * LANES, sum[v]);
    }
    for (; i < count; i++) {
        float sum = 0;
        for (int64_t j = 0; j < taps->count; j++)
            sum +=
                taps->weight[j] * padded[reflect_index(h + taps->offset[2 * j], s[1]) * stride +
                                         (taps->reach_width + taps->offset[2 * j + 1]) * s[3] + i];
        y[i] = sum;
    }
}

static void filter_wide_row(const struct taps *taps, const float *x, const int64_t s[4], int64_t h,
                            float *y)
{
    memset(y, 0, (size_t)(s[2] * s[3]) * sizeof(float));
    for (int64_t j = 0; j < taps->count; j++) {
        const float *row = x + reflect_index(h + taps->offset[2 * j], s[1]) * s[2] * s[3];
        for (int64_t w = 0; w < s[2]; w++)
            for (int64_t c = 0; c < s[3]; c++)
                y[w * s[3] + c] += taps->weight[j] *
                                   row[reflect_index(w + taps->offset[2 * j + 1], s[2]) * s[3] + c];
    }
}

void ISA_NAME(tap_filter)(const struct kernel_call *call)
{
    const int64_t *s = call->input[0].shape;
    const float *x = call->input[0].data;
    float *y = call->output[0].data, *padded = call->workspace;
    struct taps taps = taps_of(call);
    bool padding = fits(&taps, s);
    int64_t row = s[2] * s[3], padded_row = (s[2] + 2 * taps.reach_width) * s[3];
#pragma omp parallel num_threads(call->threads)
    {
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < s[0] * s[1]; unit++)
            if (padding)
                pad_row(x + unit * row, s[2], s[3], taps.reach_width, padded + unit * padded_row);
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < s[0] * s[1]; unit++) {
            int64_t first = unit / s[1] * s[1];
            if (padding)
                filter_padded_row(&taps, padded + first * padded_row, s, unit % s[1],
                                  y + unit * row);
            else
                filter_wide_row(&taps, x + first * row, s, unit % s[1], y + unit * row);
        }
    }
}

/* sum[w + dx] += weight * dy[row, w] for each tap that brings a row of dy to the unreflected row q;
 * sum starts at column -reach_width. */
static void gather_row(const struct taps *taps, const float *dy, const int64_t s[4], int64_t q,
                       float *sum)
{
    int64_t count = s[2] * s[3];
    for (int64_t j = 0; j < taps->count; j++) {
        int64_t row = q - taps->offset[2 * j];
        if (row < 0 || row >= s[1])
            continue;
        const float *from = dy + row * count;
        float *to = sum + (taps->reach_width + taps->offset[2 * j + 1]) * s[3];
        float weight = taps->weight[j];
        int64_t i = 0;
        for (; i + LANES <= count; i += LANES)
            vector_store(to + i, vector_load(to + i) + weight * vector_load(from + i));
        for (; i < count; i++)
            to[i] += weight * from[i];
    }
}

static void gather_wide_row(const struct taps *taps, const float *dy, const int64_t s[4], int64_t q,
                            float *dx)
{
    for (int64_t j = 0; j < taps->count; j++) {
        int64_t row = q - taps->offset[2 * j];
        if (row < 0 || row >= s[1])
            continue;
        for (int64_t w = 0; w < s[2]; w++)
            for (int64_t c = 0; c < s[3]; c++)
                dx[reflect_index(w + taps->offset[2 * j + 1], s[2]) * s[3] + c] +=
                    taps->weight[j] * dy[(row * s[2] + w) * s[3] + c];
    }
}

static void fold_row(const float *padded, int64_t width, int64_t channels, int64_t pad, float *dx)
{
    memcpy(dx, padded + pad * channels, (size_t)(width * channels) * sizeof(float));
    for (int64_t p = 0; p < 2 * pad; p++) {
        int64_t from = p < pad ? p : width + p, to = reflect_index(from - pad, width);
        for (int64_t c = 0; c < channels; c++)
            dx[to * channels + c] += padded[from * channels + c];
    }
}

/* Row h of dx: every unreflected row q that reflects to h, in ascending order. */
static void adjoint_row(const struct taps *taps, const float *dy, const int64_t s[4], int64_t h,
                        float *sum, float *dx)
{
    bool padding = fits(taps, s);
    int64_t row = s[2] * s[3];
    float *target = padding ? sum : dx;
    memset(target, 0, (size_t)(padding ? row + 2 * taps->reach_width * s[3] : row) * sizeof(float));
    for (int64_t q = -taps->reach_height; q < s[1] + taps->reach_height; q++) {
        if (reflect_index(q, s[1]) != h)
            continue;
        if (padding)
            gather_row(taps, dy, s, q, sum);
        else
            gather_wide_row(taps, dy, s, q, dx);
    }
    if (padding)
        fold_row(sum, s[2], s[3], taps->reach_width, dx);
}

void ISA_NAME(tap_filter_adjoint)(const struct kernel_call *call)
{
    const int64_t *s = call->output[0].shape;
    const float *dy = call->input[0].data;
    float *dx = call->output[0].data;
    struct taps taps = taps_of(call);
    int64_t row = s[2] * s[3];
#pragma omp parallel for num_threads(call->threads) schedule(static)
    for (int64_t unit = 0; unit < s[0] * s[1]; unit++) {
        float *sum = (float *)call->workspace + omp_get_thread_num() * 3 * row;
        adjoint_row(&taps, dy + unit / s[1] * s[1] * row, s, unit % s[1], sum, dx + unit * row);
    }
}
