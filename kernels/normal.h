/* Standard normals from random bits by Box and Muller's method, the same bits on every machine:
 * log, sine and cosine are polynomials in double whose every multiply-add is an explicit fma, so
 * that neither libm, nor the instruction set, nor a compiler's contraction shows in the result.
 * Correct to about 1e-15 before the one rounding to float. Shared by C and CUDA. */
#ifndef KERNELS_NORMAL_H
#define KERNELS_NORMAL_H

#include <stdint.h>

#ifdef __CUDACC__
#define NORMAL_FUNCTION static __host__ __device__ __forceinline__
#else
#include <math.h>
#define NORMAL_FUNCTION static inline
#endif

/* ln(n / 2^32) for 1 <= n <= 2^32. With n = m*2^k, m in [sqrt(1/2), sqrt(2)): ln m = 2 atanh(s),
 * s = (m-1)/(m+1), s^2 <= 0.0295, as a series in odd powers of s. */
NORMAL_FUNCTION double normal_log(uint64_t n)
{
    int exponent = 0;
    for (int step = 16; step > 0; step /= 2)
        if (n >> (exponent + step))
            exponent += step;
    exponent += n >> 32 ? 1 : 0;
    double mantissa = (double)n / (double)((uint64_t)1 << exponent);
    if (mantissa > 1.4142135623730951) {
        mantissa *= 0.5;
        exponent += 1;
    }
    double s = (mantissa - 1) / (mantissa + 1), square = s * s, sum = 1.0 / 23;
    for (int power = 21; power > 0; power -= 2)
        sum = fma(sum, square, 1.0 / power);
    return fma((double)(exponent - 32), 0.69314718055994530942, 2 * s * sum);
}

/* sin(x) and cos(x) for |x| <= pi/4, by their Taylor series. */
NORMAL_FUNCTION void normal_sine_cosine(double x, double *sine, double *cosine)
{
    double square = x * x, s = 1, c = 1;
    for (int n = 16; n > 0; n -= 2) {
        s = fma(s, -square / (double)(n * (n + 1)), 1.0);
        c = fma(c, -square / (double)(n * (n - 1)), 1.0);
    }
    *sine = x * s;
    *cosine = c;
}

/* Two normals from two words: radius sqrt(-2 ln((a+1)/2^32)), angle 2 pi b/2^32. The quadrant comes
 * from b's upper bits exactly. */
NORMAL_FUNCTION void normal_pair(uint32_t a, uint32_t b, float normal[2])
{
    uint32_t quadrant = (b + 0x20000000u) >> 30;
    int32_t rest = (int32_t)(b - (quadrant << 30));
    double sine, cosine, radius = sqrt(-2 * normal_log((uint64_t)a + 1));
    normal_sine_cosine((double)rest * (6.283185307179586477 / 4294967296.0), &sine, &cosine);
    double x = quadrant & 1 ? sine : cosine, y = quadrant & 1 ? cosine : sine;
    normal[0] = (float)(radius * (quadrant == 1 || quadrant == 2 ? -x : x));
    normal[1] = (float)(radius * (quadrant >= 2 ? -y : y));
}

#endif
