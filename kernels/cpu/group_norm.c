/* Group norm with SiLU in two passes over the picture, and its derivatives likewise. A unit is
 * a run of pixels of one picture with all its channels. The first pass leaves each unit's sums per
 * group, which fold in unit order in double; the second applies per-channel factors that the
 * groups' sums were expanded to. */
#include "kernels/cpu/math.h"

#include <math.h>

enum {
    UNIT_PIXELS_MIN = 16,
    UNIT_PIXELS_MAX = 256,
    STEP = 4 /* pixels that go together, so that sums per channel are loaded once for all */
};

struct norm {
    int64_t pictures, pixels, channels, groups, group; /* group: channels of one */
    int64_t padded;                                    /* channels in whole vectors */
    int64_t unit_pixels, units;                        /* units of a picture */
};

static struct norm norm_of(const struct tensor *x, int groups)
{
    struct norm s = {.pictures = x->shape[0],
                     .pixels = x->shape[1] * x->shape[2],
                     .channels = x->shape[3],
                     .groups = groups,
                     .group = x->shape[3] / groups};
    s.padded = ceil_divide(s.channels, LANES) * LANES;
    s.unit_pixels = 16384 / s.channels;
    s.unit_pixels = s.unit_pixels < UNIT_PIXELS_MIN   ? UNIT_PIXELS_MIN
                    : s.unit_pixels > UNIT_PIXELS_MAX ? UNIT_PIXELS_MAX
                                                      : s.unit_pixels;
    s.units = ceil_divide(s.pixels, s.unit_pixels);
    return s;
}

struct unit {
    int64_t picture, first, count; /* pixels [first, first + count) of a picture */
};

static struct unit unit_of(const struct norm *s, int64_t index)
{
    struct unit unit = {.picture = index / s->units, .first = index % s->units * s->unit_pixels};
    int64_t left = s->pixels - unit.first;
    unit.count = left < s->unit_pixels ? left : s->unit_pixels;
    return unit;
}

static int64_t unit_offset(const struct norm *s, const struct unit *unit)
{
    return (unit->picture * s->pixels + unit->first) * s->channels;
}

/* The workspace: two numbers per (unit, group) and per (picture, group) in double; per unit two
 * sums, per picture four factors for each channel. */
struct space {
    double *parts, *totals;
    float *sums, *factors;
};

static struct space space_of(const struct norm *s, void *workspace)
{
    struct space space;
    space.sums = workspace;
    space.factors = space.sums + s->pictures * s->units * 2 * s->padded;
    space.parts = (double *)(space.factors + s->pictures * 4 * s->padded);
    space.totals = space.parts + s->pictures * s->units * s->groups * 2;
    return space;
}

static size_t space_bytes(const struct kernel_call *call, const struct tensor *x)
{
    struct norm s = norm_of(x, call->attributes->group_norm.groups);
    int64_t units = s.pictures * s.units;
    return (size_t)((units * 2 + s.pictures * 4) * s.padded) * sizeof(float) +
           (size_t)((units + s.pictures) * s.groups * 2) * sizeof(double);
}

size_t ISA_NAME(group_norm_workspace)(const struct kernel_call *call)
{
    return space_bytes(call, &call->input[0]);
}

size_t ISA_NAME(group_norm_backward_workspace)(const struct kernel_call *call)
{
    return space_bytes(call, &call->input[1]);
}

size_t ISA_NAME(group_norm_jvp_workspace)(const struct kernel_call *call)
{
    return space_bytes(call, &call->input[1]);
}

/* ---- forward ---- */

/* Per channel the sums of x - x0 and of its square, x0 the unit's first pixel: the shift keeps the
 * squares from cancelling. */
static void shifted_sums(const struct norm *s, const float *x, int64_t count, float *sums)
{
    float *squares = sums + s->padded;
    memset(sums, 0, (size_t)s->padded * 2 * sizeof(float));
    for (int64_t p = 0; p < count; p += STEP) {
        int64_t step = count - p < STEP ? count - p : STEP;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t lanes = s->channels - c;
            vector_f32 shift = vector_load_some(x + c, lanes), sum = {0}, square = {0};
            for (int64_t i = 0; i < step; i++) {
                vector_f32 d = vector_load_some(x + (p + i) * s->channels + c, lanes) - shift;
                sum += d;
                square += d * d;
            }
            vector_store(sums + c, vector_load(sums + c) + sum);
            vector_store(squares + c, vector_load(squares + c) + square);
        }
    }
}

/* Adds (n, mean, squared deviations) to a running total by Chan's formula. */
static void merge(double *count, double total[2], double n, double mean, double deviations)
{
    double delta = mean - total[0], sum = *count + n;
    total[0] += delta * n / sum;
    total[1] += deviations + delta * delta * *count * n / sum;
    *count = sum;
}

static void unit_statistics(const struct norm *s, const float *x, int64_t count, float *sums,
                            double *parts)
{
    double n = (double)count;
    shifted_sums(s, x, count, sums);
    for (int64_t g = 0; g < s->groups; g++) {
        double merged = 0, *part = parts + g * 2;
        part[0] = part[1] = 0;
        for (int64_t c = g * s->group; c < (g + 1) * s->group; c++) {
            double mean = sums[c] / n;
            merge(&merged, part, n, x[c] + mean, sums[s->padded + c] - sums[c] * mean);
        }
    }
}

/* A group's mean and 1/std from its units' parts. */
static void fold_statistics(const struct norm *s, const double *parts, int64_t g, double epsilon,
                            float statistics[2])
{
    double count = 0, total[2] = {0, 0};
    for (int64_t u = 0; u < s->units; u++) {
        const double *part = parts + (u * s->groups + g) * 2;
        int64_t left = s->pixels - u * s->unit_pixels;
        int64_t pixels = left < s->unit_pixels ? left : s->unit_pixels;
        merge(&count, total, (double)(pixels * s->group), part[0], part[1]);
    }
    statistics[0] = (float)total[0];
    statistics[1] = (float)(1 / sqrt(total[1] / count + epsilon));
}

/* y = x*scale + shift per channel */
static void expand_statistics(const struct norm *s, const float *statistics, const float *gamma,
                              const float *beta, float *factors)
{
    memset(factors, 0, (size_t)s->padded * 2 * sizeof(float));
    for (int64_t c = 0; c < s->channels; c++) {
        const float *group = statistics + c / s->group * 2;
        factors[c] = gamma[c] * group[1];
        factors[s->padded + c] = (float)(beta[c] - (double)group[0] * factors[c]);
    }
}

ALWAYS_INLINE void apply_unit(const struct norm *s, const float *x, int64_t count,
                              const float *factors, bool silu, float *y)
{
    for (int64_t p = 0; p < count; p++)
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t i = p * s->channels + c, lanes = s->channels - c;
            vector_f32 u = vector_load_some(x + i, lanes) * vector_load(factors + c) +
                           vector_load(factors + s->padded + c);
            vector_store_some(y + i, silu ? vector_silu(u) : u, lanes);
        }
}

void ISA_NAME(group_norm)(const struct kernel_call *call)
{
    struct norm s = norm_of(&call->input[0], call->attributes->group_norm.groups);
    struct space space = space_of(&s, call->workspace);
    const float *x = call->input[0].data, *gamma = call->input[1].data, *beta = call->input[2].data;
    float *y = call->output[0].data, *statistics = call->output[1].data;
    bool silu = call->attributes->group_norm.silu;
#pragma omp parallel num_threads(threads_for(call, tensor_elements(&call->input[0])))
    {
#pragma omp for
        for (int64_t i = 0; i < s.pictures * s.units; i++) {
            struct unit unit = unit_of(&s, i);
            unit_statistics(&s, x + unit_offset(&s, &unit), unit.count,
                            space.sums + i * 2 * s.padded, space.parts + i * s.groups * 2);
        }
#pragma omp for
        for (int64_t i = 0; i < s.pictures * s.groups; i++)
            fold_statistics(&s, space.parts + i / s.groups * s.units * s.groups * 2, i % s.groups,
                            call->attributes->group_norm.epsilon, statistics + i * 2);
#pragma omp for
        for (int64_t n = 0; n < s.pictures; n++)
            expand_statistics(&s, statistics + n * s.groups * 2, gamma, beta,
                              space.factors + n * 4 * s.padded);
#pragma omp for
        for (int64_t i = 0; i < s.pictures * s.units; i++) {
            struct unit unit = unit_of(&s, i);
            int64_t offset = unit_offset(&s, &unit);
            const float *factors = space.factors + unit.picture * 4 * s.padded;
            if (silu)
                apply_unit(&s, x + offset, unit.count, factors, true, y + offset);
            else
                apply_unit(&s, x + offset, unit.count, factors, false, y + offset);
        }
    }
}

/* ---- backward and forward derivative ---- */

/* Of y = silu(u), u = x*SCALE + SHIFT as in the forward pass, normalisation's own derivative is
 * symmetric: reverse mode takes silu' and gamma before it, forward mode after it. Either way its
 * result is SCALE*d + X*x + CONSTANT per channel (cpu-kernels.md section 4). */
enum { SCALE, SHIFT, X, CONSTANT };

struct derivative {
    struct norm norm;
    struct space space;
    const float *d, *x, *gamma, *beta, *statistics; /* d: the gradient of y, the tangent of x */
    float *result;
    bool silu;
};

static struct derivative derivative_of(const struct kernel_call *call)
{
    struct derivative b = {
        .norm = norm_of(&call->input[1], call->attributes->group_norm.groups),
        .d = call->input[0].data,
        .x = call->input[1].data,
        .gamma = call->input[2].data,
        .beta = call->input[3].data,
        .statistics = call->input[4].data,
        .result = call->output[0].data,
        .silu = call->attributes->group_norm.silu,
    };
    b.space = space_of(&b.norm, call->workspace);
    return b;
}

ALWAYS_INLINE vector_f32 slope_at(const struct norm *s, vector_f32 x, const float *factors)
{
    return vector_silu_derivative(x * vector_load(factors) + vector_load(factors + s->padded));
}

/* Per channel the sums of d and of d*(x - x0), x0 the unit's first pixel; d times silu' if
 * sloped. */
ALWAYS_INLINE void derivative_sums(const struct norm *s, const float *derivative, const float *x,
                                   int64_t count, const float *factors, bool sloped, float *sums)
{
    float *products = sums + s->padded;
    memset(sums, 0, (size_t)s->padded * 2 * sizeof(float));
    for (int64_t p = 0; p < count; p += STEP) {
        int64_t step = count - p < STEP ? count - p : STEP;
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t lanes = s->channels - c;
            vector_f32 shift = vector_load_some(x + c, lanes), sum = {0}, product = {0};
            for (int64_t i = 0; i < step; i++) {
                int64_t offset = (p + i) * s->channels + c;
                vector_f32 value = vector_load_some(x + offset, lanes);
                vector_f32 d = vector_load_some(derivative + offset, lanes);
                if (sloped)
                    d *= slope_at(s, value, factors + c);
                sum += d;
                product += d * (value - shift);
            }
            vector_store(sums + c, vector_load(sums + c) + sum);
            vector_store(products + c, vector_load(products + c) + product);
        }
    }
}

/* Per group the sums of d and of d*(x - mean), d times gamma unless that comes after. */
static void unit_derivatives(const struct norm *s, const float *x, const float *sums,
                             const float *gamma, const float *statistics, bool forward,
                             double *parts)
{
    for (int64_t g = 0; g < s->groups; g++) {
        double sum = 0, product = 0;
        for (int64_t c = g * s->group; c < (g + 1) * s->group; c++) {
            double shift = (double)x[c] - statistics[g * 2], weight = forward ? 1 : gamma[c];
            sum += weight * sums[c];
            product += weight * (sums[s->padded + c] + shift * sums[c]);
        }
        parts[g * 2] = sum;
        parts[g * 2 + 1] = product;
    }
}

static void fold_derivatives(const struct norm *s, const double *parts, int64_t g, double total[2])
{
    total[0] = total[1] = 0;
    for (int64_t u = 0; u < s->units; u++)
        for (int i = 0; i < 2; i++)
            total[i] += parts[(u * s->groups + g) * 2 + i];
}

static void expand_derivatives(const struct norm *s, const float *statistics, const double *totals,
                               const float *gamma, bool forward, float *factors)
{
    double n = (double)(s->pixels * s->group);
    for (int64_t c = 0; c < s->channels; c++) {
        int64_t g = c / s->group;
        double mean = statistics[g * 2], reciprocal = statistics[g * 2 + 1];
        double weight = forward ? gamma[c] * reciprocal : reciprocal;
        double slope = -weight * reciprocal * reciprocal * totals[g * 2 + 1] / n;
        factors[X * s->padded + c] = (float)slope;
        factors[CONSTANT * s->padded + c] = (float)(-weight * totals[g * 2] / n - slope * mean);
    }
}

ALWAYS_INLINE void derivative_unit(const struct norm *s, const float *derivative, const float *x,
                                   int64_t count, const float *factors, bool silu, bool forward,
                                   float *result)
{
    for (int64_t p = 0; p < count; p++)
        for (int64_t c = 0; c < s->channels; c += LANES) {
            int64_t i = p * s->channels + c, lanes = s->channels - c;
            vector_f32 value = vector_load_some(x + i, lanes);
            vector_f32 d = vector_load_some(derivative + i, lanes);
            if (silu && !forward)
                d *= slope_at(s, value, factors + c);
            d = d * vector_load(factors + c) + (value * vector_load(factors + X * s->padded + c) +
                                                vector_load(factors + CONSTANT * s->padded + c));
            if (silu && forward)
                d *= slope_at(s, value, factors + c);
            vector_store_some(result + i, d, lanes);
        }
}

static void sum_channels(const struct derivative *b, int64_t index, bool forward)
{
    const struct norm *s = &b->norm;
    struct unit unit = unit_of(s, index);
    int64_t offset = unit_offset(s, &unit);
    const float *factors = b->space.factors + unit.picture * 4 * s->padded;
    float *sums = b->space.sums + index * 2 * s->padded;
    if (b->silu && !forward)
        derivative_sums(s, b->d + offset, b->x + offset, unit.count, factors, true, sums);
    else
        derivative_sums(s, b->d + offset, b->x + offset, unit.count, factors, false, sums);
}

static void sum_unit(const struct derivative *b, int64_t index, bool forward)
{
    const struct norm *s = &b->norm;
    struct unit unit = unit_of(s, index);
    sum_channels(b, index, forward);
    unit_derivatives(s, b->x + unit_offset(s, &unit), b->space.sums + index * 2 * s->padded,
                     b->gamma, b->statistics + unit.picture * s->groups * 2, forward,
                     b->space.parts + index * s->groups * 2);
}

static void apply_derivative(const struct derivative *b, int64_t index, bool forward)
{
    const struct norm *s = &b->norm;
    struct unit unit = unit_of(s, index);
    int64_t offset = unit_offset(s, &unit);
    const float *factors = b->space.factors + unit.picture * 4 * s->padded;
    const float *d = b->d + offset, *x = b->x + offset;
    float *result = b->result + offset;
    if (!b->silu)
        derivative_unit(s, d, x, unit.count, factors, false, forward, result);
    else if (forward)
        derivative_unit(s, d, x, unit.count, factors, true, true, result);
    else
        derivative_unit(s, d, x, unit.count, factors, true, false, result);
}

static void expand_picture(const struct derivative *b, int64_t n)
{
    const struct norm *s = &b->norm;
    float *factors = b->space.factors + n * 4 * s->padded;
    memset(factors, 0, (size_t)s->padded * 4 * sizeof(float));
    expand_statistics(s, b->statistics + n * s->groups * 2, b->gamma, b->beta, factors);
}

static void run_derivative(const struct kernel_call *call, bool forward)
{
    struct derivative b = derivative_of(call);
    const struct norm *s = &b.norm;
    int64_t units = s->pictures * s->units;
#pragma omp parallel num_threads(threads_for(call, tensor_elements(&call->input[1])))
    {
#pragma omp for
        for (int64_t n = 0; n < s->pictures; n++)
            expand_picture(&b, n);
#pragma omp for
        for (int64_t i = 0; i < units; i++)
            sum_unit(&b, i, forward);
#pragma omp for
        for (int64_t i = 0; i < s->pictures * s->groups; i++)
            fold_derivatives(s, b.space.parts + i / s->groups * s->units * s->groups * 2,
                             i % s->groups, b.space.totals + i * 2);
#pragma omp for
        for (int64_t n = 0; n < s->pictures; n++)
            expand_derivatives(s, b.statistics + n * s->groups * 2,
                               b.space.totals + n * s->groups * 2, b.gamma, forward,
                               b.space.factors + n * 4 * s->padded);
#pragma omp for
        for (int64_t i = 0; i < units; i++)
            apply_derivative(&b, i, forward);
    }
}

void ISA_NAME(group_norm_backward)(const struct kernel_call *call)
{
    run_derivative(call, false);
}

void ISA_NAME(group_norm_jvp)(const struct kernel_call *call)
{
    run_derivative(call, true);
}

/* ---- with respect to gamma and beta ---- */

/* The sums of d and of d times the normalised x over all units. */
static void fold_channel(const struct derivative *b, int64_t channel, float *dgamma, float *dbeta)
{
    const struct norm *s = &b->norm;
    double sum = 0, product = 0;
    for (int64_t i = 0; i < s->pictures * s->units; i++) {
        struct unit unit = unit_of(s, i);
        const float *sums = b->space.sums + i * 2 * s->padded + channel;
        const float *statistics =
            b->statistics + (unit.picture * s->groups + channel / s->group) * 2;
        double shift = (double)b->x[unit_offset(s, &unit) + channel] - statistics[0];
        sum += sums[0];
        product += statistics[1] * (sums[s->padded] + shift * sums[0]);
    }
    *dgamma = (float)product;
    *dbeta = (float)sum;
}

size_t ISA_NAME(group_norm_backward_affine_workspace)(const struct kernel_call *call)
{
    return space_bytes(call, &call->input[1]);
}

void ISA_NAME(group_norm_backward_affine)(const struct kernel_call *call)
{
    struct derivative b = derivative_of(call);
    const struct norm *s = &b.norm;
    float *dgamma = call->output[0].data, *dbeta = call->output[1].data;
#pragma omp parallel num_threads(threads_for(call, tensor_elements(&call->input[1])))
    {
#pragma omp for
        for (int64_t n = 0; n < s->pictures; n++)
            expand_picture(&b, n);
#pragma omp for
        for (int64_t i = 0; i < s->pictures * s->units; i++)
            sum_channels(&b, i, false);
#pragma omp for
        for (int64_t c = 0; c < s->channels; c++)
            fold_channel(&b, c, dgamma + c, dbeta + c);
    }
}
