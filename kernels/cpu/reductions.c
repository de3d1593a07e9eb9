/* Sums in double, one per unit of elements or of pixels, folded in unit order. */
#include "kernels/cpu/math.h"

#include <math.h>

typedef double vector_f64 __attribute__((vector_size(VECTOR_BYTES)));
typedef int64_t vector_i64 __attribute__((vector_size(VECTOR_BYTES)));
typedef float half_vector __attribute__((vector_size(VECTOR_BYTES / 2)));

size_t ISA_NAME(mean_squared_error_workspace)(const struct kernel_call *call)
{
    return (size_t)ceil_divide(tensor_elements(&call->input[0]), UNIT_ELEMENTS) * sizeof(double);
}

size_t ISA_NAME(mean_absolute_error_workspace)(const struct kernel_call *call)
{
    return ISA_NAME(mean_squared_error_workspace)(call);
}

size_t ISA_NAME(l2_norm_workspace)(const struct kernel_call *call)
{
    return ISA_NAME(mean_squared_error_workspace)(call);
}

size_t ISA_NAME(dot_workspace)(const struct kernel_call *call)
{
    return ISA_NAME(mean_squared_error_workspace)(call);
}

ALWAYS_INLINE vector_f64 widen(const float *p)
{
    half_vector half;
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, vector_f64);
}

enum sum { SUM_SQUARES, SUM_DISTANCES, SUM_PRODUCTS }; /* of (a-b)^2, |a-b|, a*b */

ALWAYS_INLINE vector_f64 magnitude(vector_f64 x)
{
    return (vector_f64)((vector_i64)x & INT64_MAX);
}

ALWAYS_INLINE double unit_sum(const float *a, const float *b, int64_t n, enum sum kind)
{
    vector_f64 sum[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int half = 0; half < 2; half++) {
            int64_t at = i + half * (LANES / 2);
            vector_f64 x = widen(a + at), y = widen(b + at), d = x - y;
            sum[half] += kind == SUM_SQUARES ? d * d : kind == SUM_DISTANCES ? magnitude(d) : x * y;
        }
    double total = 0;
    for (; i < n; i++) {
        double d = (double)a[i] - b[i];
        total += kind == SUM_SQUARES     ? d * d
                 : kind == SUM_DISTANCES ? fabs(d)
                                         : (double)a[i] * b[i];
    }
    for (int lane = 0; lane < LANES / 2; lane++)
        total += sum[0][lane] + sum[1][lane];
    return total;
}

static double sum_of(const struct kernel_call *call, const float *a, const float *b, enum sum kind)
{
    int64_t n = tensor_elements(&call->input[0]), units = ceil_divide(n, UNIT_ELEMENTS);
    double *parts = call->workspace, total = 0;
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t u = 0; u < units; u++) {
        int64_t first = u * UNIT_ELEMENTS;
        int64_t count = n - first < UNIT_ELEMENTS ? n - first : UNIT_ELEMENTS;
        parts[u] = kind == SUM_SQUARES     ? unit_sum(a + first, b + first, count, SUM_SQUARES)
                   : kind == SUM_DISTANCES ? unit_sum(a + first, b + first, count, SUM_DISTANCES)
                                           : unit_sum(a + first, b + first, count, SUM_PRODUCTS);
    }
    for (int64_t u = 0; u < units; u++)
        total += parts[u];
    return total;
}

void ISA_NAME(mean_squared_error)(const struct kernel_call *call)
{
    double total = sum_of(call, call->input[0].data, call->input[1].data, SUM_SQUARES);
    *(float *)call->output[0].data = (float)(total / (double)tensor_elements(&call->input[0]));
}

void ISA_NAME(mean_absolute_error)(const struct kernel_call *call)
{
    double total = sum_of(call, call->input[0].data, call->input[1].data, SUM_DISTANCES);
    *(float *)call->output[0].data = (float)(total / (double)tensor_elements(&call->input[0]));
}

void ISA_NAME(l2_norm)(const struct kernel_call *call)
{
    *(float *)call->output[0].data =
        (float)sqrt(sum_of(call, call->input[0].data, call->input[0].data, SUM_PRODUCTS));
}

void ISA_NAME(dot)(const struct kernel_call *call)
{
    *(float *)call->output[0].data =
        (float)sum_of(call, call->input[0].data, call->input[1].data, SUM_PRODUCTS);
}

void ISA_NAME(mean_squared_error_backward)(const struct kernel_call *call)
{
    const float *g = call->input[0].data, *a = call->input[1].data, *b = call->input[2].data;
    float *da = call->output[0].data;
    int64_t n = tensor_elements(&call->input[1]);
    float factor = (float)(*g * 2.0 / (double)n);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES) {
        vector_f32 d = vector_load_some(a + i, n - i) - vector_load_some(b + i, n - i);
        vector_store_some(da + i, factor * d, n - i);
    }
}

void ISA_NAME(mean_absolute_error_backward)(const struct kernel_call *call)
{
    const float *g = call->input[0].data, *a = call->input[1].data, *b = call->input[2].data;
    float *da = call->output[0].data;
    int64_t n = tensor_elements(&call->input[1]);
    float factor = (float)(*g / (double)n);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i++)
        da[i] = factor * (float)((a[i] > b[i]) - (a[i] < b[i]));
}

void ISA_NAME(l2_norm_backward)(const struct kernel_call *call)
{
    const float *g = call->input[0].data, *r = call->input[1].data, *norm = call->input[2].data;
    float *dr = call->output[0].data;
    int64_t n = tensor_elements(&call->input[1]);
    float factor = *norm == 0 ? 0 : *g / *norm;
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES)
        vector_store_some(dr + i, factor * vector_load_some(r + i, n - i), n - i);
}

/* A unit is a run of pixels, about UNIT_ELEMENTS elements. */
static int64_t pixels_of_unit(int64_t channels)
{
    return channels < UNIT_ELEMENTS ? UNIT_ELEMENTS / channels : 1;
}

size_t ISA_NAME(sum_pixels_workspace)(const struct kernel_call *call)
{
    int64_t channels = call->input[0].shape[3];
    int64_t pixels = tensor_elements(&call->input[0]) / channels;
    return (size_t)(ceil_divide(pixels, pixels_of_unit(channels)) * channels) * sizeof(double);
}

void ISA_NAME(sum_pixels)(const struct kernel_call *call)
{
    const float *x = call->input[0].data;
    float *y = call->output[0].data;
    double *parts = call->workspace;
    int64_t count = tensor_elements(&call->input[0]), channels = call->input[0].shape[3];
    int64_t pixels = count / channels, run = pixels_of_unit(channels);
    int64_t units = ceil_divide(pixels, run);
#pragma omp parallel for num_threads(threads_for(call, count))
    for (int64_t u = 0; u < units; u++) {
        double *part = parts + u * channels;
        int64_t end = (u + 1) * run < pixels ? (u + 1) * run : pixels;
        memset(part, 0, (size_t)channels * sizeof *part);
        for (int64_t p = u * run; p < end; p++)
            for (int64_t c = 0; c < channels; c++)
                part[c] += x[p * channels + c];
    }
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t u = 0; u < units; u++)
            sum += parts[u * channels + c];
        y[c] = (float)sum;
    }
}
