/* Parallel-beam ray sums and their exact transpose. The ray sum's units are blocks of detectors;
 * the transpose's are bands of picture rows, each of which walks only the samples that touch it, so
 * that no two units write the same pixel. */
#include "kernels/cpu/isa.h"
#include "kernels/radon.h"

#include <string.h>

void ISA_NAME(radon)(const struct kernel_call *call);
void ISA_NAME(radon_adjoint)(const struct kernel_call *call);

enum { CHUNK = 64, DETECTOR_BLOCK = 32, BAND_ROWS = 16, CHANNEL_BLOCK = 8 };

/* Where up to CHUNK samples of a ray lie. */
struct chunk {
    int32_t left[CHUNK], top[CHUNK];
    float right_share[CHUNK], lower_share[CHUNK];
};

/* Samples [first, end), at most a chunk; returns how many. */
static inline int locate(const struct radon_ray *ray, int64_t first, int64_t end,
                         struct chunk *chunk)
{
    int count = end - first < CHUNK ? (int)(end - first) : CHUNK;
    for (int i = 0; i < count; i++) {
        double column = ray->column + (double)(int32_t)(first + i) * ray->column_step;
        double row = ray->row + (double)(int32_t)(first + i) * ray->row_step;
        chunk->left[i] = radon_floor(column);
        chunk->top[i] = radon_floor(row);
        chunk->right_share[i] = (float)(column - (double)chunk->left[i]);
        chunk->lower_share[i] = (float)(row - (double)chunk->top[i]);
    }
    return count;
}

struct corner_weights {
    float w[2][2]; /* [row][column] */
};

static inline struct corner_weights corner_weights(const struct chunk *chunk, int i)
{
    float right = chunk->right_share[i], lower = chunk->lower_share[i];
    return (struct corner_weights){
        {{(1 - right) * (1 - lower), right * (1 - lower)}, {(1 - right) * lower, right * lower}}};
}

/* sum[c] += x at sample i, channels [0, count) of pixels `stride` floats apart. */
static inline __attribute__((always_inline)) void read_sample(const struct chunk *chunk, int i,
                                                              const float *x, int64_t height,
                                                              int64_t width, int64_t stride,
                                                              int count, double *sum)
{
    struct corner_weights k = corner_weights(chunk, i);
    int64_t left = chunk->left[i], top = chunk->top[i];
    if ((uint64_t)left < (uint64_t)(width - 1) && (uint64_t)top < (uint64_t)(height - 1)) {
        const float *p = x + (top * width + left) * stride, *q = p + width * stride;
        for (int c = 0; c < count; c++)
            sum[c] += (double)(k.w[0][0] * p[c] + k.w[0][1] * p[stride + c] + k.w[1][0] * q[c] +
                               k.w[1][1] * q[stride + c]);
        return;
    }
    for (int64_t dy = 0; dy < 2; dy++)
        for (int64_t dx = 0; dx < 2; dx++)
            if (top + dy >= 0 && top + dy < height && left + dx >= 0 && left + dx < width)
                for (int c = 0; c < count; c++)
                    sum[c] +=
                        (double)(k.w[dy][dx] * x[((top + dy) * width + left + dx) * stride + c]);
}

static inline __attribute__((always_inline)) void
sum_ray(const struct radon_ray *ray, const float *x, const int64_t s[4], int count, float *y)
{
    double sum[CHANNEL_BLOCK] = {0};
    struct chunk chunk;
    for (int64_t first = 0; first < ray->samples; first += CHUNK) {
        int samples = locate(ray, first, ray->samples, &chunk);
        for (int i = 0; i < samples; i++)
            read_sample(&chunk, i, x, s[1], s[2], s[3], count, sum);
    }
    for (int c = 0; c < count; c++)
        y[c] = (float)(sum[c] * ray->weight);
}

static void sum_ray_channels(const struct radon_ray *ray, const float *x, const int64_t s[4],
                             float *y)
{
    if (s[3] == 1) {
        sum_ray(ray, x, s, 1, y);
    } else if (s[3] == 3) {
        sum_ray(ray, x, s, 3, y);
    } else {
        for (int64_t c = 0; c < s[3]; c += CHANNEL_BLOCK)
            sum_ray(ray, x + c, s, s[3] - c < CHANNEL_BLOCK ? (int)(s[3] - c) : CHANNEL_BLOCK,
                    y + c);
    }
}

void ISA_NAME(radon)(const struct kernel_call *call)
{
    const int64_t *s = call->input[0].shape, *out = call->output[0].shape;
    const float *x = call->input[0].data;
    const double *geometry = call->input[1].data;
    float *y = call->output[0].data;
    int64_t views = out[1], detectors = out[2];
    int64_t blocks = (detectors + DETECTOR_BLOCK - 1) / DETECTOR_BLOCK;
#pragma omp parallel for num_threads(call->threads) schedule(dynamic)
    for (int64_t unit = 0; unit < s[0] * views * blocks; unit++) {
        int64_t n = unit / (views * blocks), view = unit / blocks % views;
        int64_t first = unit % blocks * DETECTOR_BLOCK;
        for (int64_t r = first; r < detectors && r < first + DETECTOR_BLOCK; r++) {
            struct radon_ray ray = radon_ray(geometry, view, r, s[1], s[2]);
            sum_ray_channels(&ray, x + n * s[1] * s[2] * s[3], s,
                             y + ((n * views + view) * detectors + r) * s[3]);
        }
    }
}

struct band {
    float *x; /* the picture */
    int64_t first, end, width, stride;
};

/* The band's pixels around sample i += their weights * g[c]. */
static inline __attribute__((always_inline)) void
write_sample(const struct chunk *chunk, int i, const struct band *band, const float *g, int count)
{
    struct corner_weights k = corner_weights(chunk, i);
    int64_t left = chunk->left[i], top = chunk->top[i], stride = band->stride;
    if (top >= band->first && top + 1 < band->end && left >= 0 && left + 1 < band->width) {
        float *p = band->x + (top * band->width + left) * stride, *q = p + band->width * stride;
        for (int c = 0; c < count; c++) {
            p[c] += k.w[0][0] * g[c];
            p[stride + c] += k.w[0][1] * g[c];
            q[c] += k.w[1][0] * g[c];
            q[stride + c] += k.w[1][1] * g[c];
        }
        return;
    }
    for (int64_t dy = 0; dy < 2; dy++)
        for (int64_t dx = 0; dx < 2; dx++)
            if (top + dy >= band->first && top + dy < band->end && left + dx >= 0 &&
                left + dx < band->width)
                for (int c = 0; c < count; c++)
                    band->x[((top + dy) * band->width + left + dx) * stride + c] +=
                        k.w[dy][dx] * g[c];
}

/* Samples [*from, *to) of the ray hold all that can touch the band. */
static void samples_in_band(const struct radon_ray *ray, const struct band *band, int64_t *from,
                            int64_t *to)
{
    double low = (double)band->first - 1, high = (double)band->end;
    *from = 0;
    *to = ray->samples;
    if (fabs(ray->row_step) < 1e-6) {
        double row = ray->row, end = row + (double)ray->samples * ray->row_step;
        if (fmax(row, end) < low || fmin(row, end) > high)
            *to = 0;
        return;
    }
    double a = (low - ray->row) / ray->row_step, b = (high - ray->row) / ray->row_step;
    double enter = floor(fmin(a, b)) - 1, leave = ceil(fmax(a, b)) + 2;
    if (enter > 0)
        *from = enter < (double)ray->samples ? (int64_t)enter : ray->samples;
    if (leave < (double)ray->samples)
        *to = leave > 0 ? (int64_t)leave : 0;
}

static inline __attribute__((always_inline)) void
spread_ray(const struct radon_ray *ray, const struct band *band, const float *y, int count)
{
    float g[CHANNEL_BLOCK];
    for (int c = 0; c < count; c++)
        g[c] = (float)(ray->weight * (double)y[c]);
    int64_t from, to;
    samples_in_band(ray, band, &from, &to);
    struct chunk chunk;
    for (int64_t first = from; first < to; first += CHUNK) {
        int samples = locate(ray, first, to, &chunk);
        for (int i = 0; i < samples; i++)
            write_sample(&chunk, i, band, g, count);
    }
}

static void spread_ray_channels(const struct radon_ray *ray, const struct band *band,
                                const float *y)
{
    if (band->stride == 1) {
        spread_ray(ray, band, y, 1);
    } else if (band->stride == 3) {
        spread_ray(ray, band, y, 3);
    } else {
        struct band part = *band;
        for (int64_t c = 0; c < band->stride; c += CHANNEL_BLOCK, part.x += CHANNEL_BLOCK)
            spread_ray(ray, &part, y + c,
                       band->stride - c < CHANNEL_BLOCK ? (int)(band->stride - c) : CHANNEL_BLOCK);
    }
}

void ISA_NAME(radon_adjoint)(const struct kernel_call *call)
{
    const int64_t *in = call->input[0].shape, *s = call->output[0].shape;
    const float *y = call->input[0].data;
    const double *geometry = call->input[1].data;
    float *x = call->output[0].data;
    int64_t bands = (s[1] + BAND_ROWS - 1) / BAND_ROWS;
#pragma omp parallel for num_threads(call->threads) schedule(dynamic)
    for (int64_t unit = 0; unit < s[0] * bands; unit++) {
        int64_t n = unit / bands, first = unit % bands * BAND_ROWS;
        int64_t end = first + BAND_ROWS < s[1] ? first + BAND_ROWS : s[1];
        struct band band = {x + n * s[1] * s[2] * s[3], first, end, s[2], s[3]};
        memset(band.x + first * s[2] * s[3], 0,
               (size_t)((end - first) * s[2] * s[3]) * sizeof(float));
        for (int64_t i = 0; i < in[1] * in[2]; i++) {
            struct radon_ray ray = radon_ray(geometry, i / in[2], i % in[2], s[1], s[2]);
            if (ray.samples > 0)
                spread_ray_channels(&ray, &band, y + (n * in[1] * in[2] + i) * s[3]);
        }
    }
}
