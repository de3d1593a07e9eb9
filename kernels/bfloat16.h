/* bfloat16 by its bits: the upper half of a float. Rounded to nearest, ties to even. */
#ifndef KERNELS_BFLOAT16_H
#define KERNELS_BFLOAT16_H

#include <stdint.h>
#include <string.h>

static inline float float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_from_bfloat16(uint16_t value)
{
    return float_from_bits((uint32_t)value << 16);
}

static inline uint16_t bfloat16_from_float(float value)
{
    uint32_t bits = bits_from_float(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#endif
