/* Sums of squares in double, one per unit of elements, folded in unit order. */
#include "kernels/cpu/math.h"

#include <math.h>

typedef double vector_f64 __attribute__((vector_size(VECTOR_BYTES)));
typedef float half_vector __attribute__((vector_size(VECTOR_BYTES / 2)));

size_t ISA_NAME(mean_squared_error_workspace)(const struct kernel_call *call)
{
    return (size_t)ceil_divide(tensor_elements(&call->input[0]), UNIT_ELEMENTS) * sizeof(double);
}

size_t ISA_NAME(l2_norm_workspace)(const struct kernel_call *call)
{
    return ISA_NAME(mean_squared_error_workspace)(call);
}

ALWAYS_INLINE vector_f64 widen(const float *p)
{
    half_vector half;
    memcpy(&half, p, sizeof half);
    return __builtin_convertvector(half, vector_f64);
}

/* sum of (a-b)^2, or of a^2 where b is NULL */
ALWAYS_INLINE double unit_squares(const float *a, const float *b, int64_t n)
{
    vector_f64 sum[2] = {{0}, {0}};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int half = 0; half < 2; half++) {
            int64_t at = i + half * (LANES / 2);
            vector_f64 d = b ? widen(a + at) - widen(b + at) : widen(a + at);
            sum[half] += d * d;
        }
    double total = 0;
    for (; i < n; i++) {
        double d = b ? (double)a[i] - b[i] : a[i];
        total += d * d;
    }
    for (int lane = 0; lane < LANES / 2; lane++)
        total += sum[0][lane] + sum[1][lane];
    return total;
}

static double sum_of_squares(const struct kernel_call *call, const float *a, const float *b)
{
    int64_t n = tensor_elements(&call->input[0]), units = ceil_divide(n, UNIT_ELEMENTS);
    double *parts = call->workspace, total = 0;
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t u = 0; u < units; u++) {
        int64_t first = u * UNIT_ELEMENTS;
        int64_t count = n - first < UNIT_ELEMENTS ? n - first : UNIT_ELEMENTS;
        parts[u] =
            b ? unit_squares(a + first, b + first, count) : unit_squares(a + first, NULL, count);
    }
    for (int64_t u = 0; u < units; u++)
        total += parts[u];
    return total;
}

void ISA_NAME(mean_squared_error)(const struct kernel_call *call)
{
    double total = sum_of_squares(call, call->input[0].data, call->input[1].data);
    *(float *)call->output[0].data = (float)(total / (double)tensor_elements(&call->input[0]));
}

void ISA_NAME(l2_norm)(const struct kernel_call *call)
{
    *(float *)call->output[0].data = (float)sqrt(sum_of_squares(call, call->input[0].data, NULL));
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
