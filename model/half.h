/* The 16-bit floating-point formats of checkpoints: IEEE binary16 (subnormals, infinities and NaN
 * included) and bfloat16, by their bits; to 16 bits the nearest value, ties to even. */
#ifndef MODEL_HALF_H
#define MODEL_HALF_H

#include "kernels/bfloat16.h"

#include <math.h>

static inline float float_from_half(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = (half >> 10) & 31, fraction = half & 0x3ff;
    if (exponent == 0)
        return float_from_bits(sign | bits_from_float((float)fraction * 0x1p-24f));
    uint32_t rebiased = exponent == 31 ? 255 : exponent + 127 - 15;
    return float_from_bits(sign | rebiased << 23 | fraction << 13);
}

static inline uint16_t half_from_float(float value)
{
    uint32_t bits = bits_from_float(value), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= bits_from_float(65520.0f)) /* halfway to the first power that does not fit */
        return sign | 0x7c00;
    if (magnitude < bits_from_float(0x1p-14f))
        return sign | (uint16_t)lrintf(float_from_bits(magnitude) * 0x1p24f);
    uint32_t rebiased = magnitude - ((127u - 15u) << 23);
    return sign | (uint16_t)((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
}

#endif
