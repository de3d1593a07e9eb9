/* What the fast kernels share beside isa.h: the exponential in vectors, loads and stores of a row's
 * last few elements, and how elementwise work is cut into units. */
#ifndef KERNELS_CPU_MATH_H
#define KERNELS_CPU_MATH_H

#include "kernels/cpu/isa.h"

#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Elementwise work is cut into units of this many elements, whatever the number of threads. */
enum { UNIT_ELEMENTS = 8192 };

static inline int64_t ceil_divide(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Below a few units a parallel region costs more than it saves. */
static inline int threads_for(const struct kernel_call *call, int64_t elements)
{
    return elements < 4 * UNIT_ELEMENTS ? 1 : call->threads;
}

/* a where the mask is all ones, b where it is zero */
ALWAYS_INLINE vector_f32 vector_select(vector_i32 mask, vector_f32 a, vector_f32 b)
{
    return (vector_f32)((mask & (vector_i32)a) | (~mask & (vector_i32)b));
}

ALWAYS_INLINE vector_f32 vector_max(vector_f32 a, vector_f32 b)
{
    return vector_select(a > b, a, b);
}

ALWAYS_INLINE vector_f32 vector_min(vector_f32 a, vector_f32 b)
{
    return vector_select(a < b, a, b);
}

/* The first `count` elements at p, zeros after them; a whole vector when there are enough. */
ALWAYS_INLINE vector_f32 vector_load_some(const float *p, int64_t count)
{
    if (count >= LANES)
        return vector_load(p);
    vector_f32 v = {0};
    memcpy(&v, p, (size_t)count * sizeof(float));
    return v;
}

ALWAYS_INLINE void vector_store_some(float *p, vector_f32 v, int64_t count)
{
    if (count >= LANES)
        vector_store(p, v);
    else
        memcpy(p, &v, (size_t)count * sizeof(float));
}

/* exp(x) for x clamped to [-87, 88], relative error below 1.2e-7: x = n ln 2 + r with ln 2 in two
 * parts of which n times the first is exact, a polynomial of degree 6 for exp(r), n added to the
 * exponent. Adding 1.5*2^23 rounds to an integer that stands in the low bits of the sum. */
ALWAYS_INLINE vector_f32 vector_exp(vector_f32 x)
{
    const float log2e = 1.44269504f, shift = 12582912;
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    x = vector_min(vector_max(x, vector_set(-87)), vector_set(88));
    vector_f32 shifted = x * log2e + shift;
    vector_f32 n = shifted - shift;
    vector_f32 r = (x - n * ln2_high) - n * ln2_low;
    vector_f32 p = r * 0.00138436496f + 0.00837415643f;
    p = p * r + 0.0416680042f;
    p = p * r + 0.16666431f;
    p = p * r + 0.499999938f;
    p = p * r + 1;
    p = p * r + 1;
    return (vector_f32)((vector_i32)p + ((vector_i32)shifted << 23));
}

ALWAYS_INLINE vector_f32 vector_silu(vector_f32 x)
{
    return x / (1 + vector_exp(-x));
}

/* silu'(x) = s (1 + x (1-s)), s = 1/(1+e), e = exp(-x), 1-s = e s without cancellation */
ALWAYS_INLINE vector_f32 vector_silu_derivative(vector_f32 x)
{
    vector_f32 e = vector_exp(-x), s = 1 / (1 + e);
    return s * (1 + x * (e * s));
}

#endif
