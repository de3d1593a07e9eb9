/* Mirror at the border without repeating the edge (-1 -> 1), as often as needed. Shared by C and
 * CUDA. */
#ifndef KERNELS_REFLECT_H
#define KERNELS_REFLECT_H

#include <stdint.h>

#ifdef __CUDACC__
#define REFLECT_FUNCTION static __host__ __device__ __forceinline__
#else
#define REFLECT_FUNCTION static inline
#endif

REFLECT_FUNCTION int64_t reflect_index(int64_t index, int64_t length)
{
    if (index >= 0 && index < length)
        return index;
    if (length == 1)
        return 0;
    int64_t period = 2 * (length - 1);
    index %= period;
    if (index < 0)
        index += period;
    return index < length ? index : period - index;
}

#endif
