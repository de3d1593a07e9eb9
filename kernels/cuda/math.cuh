/* SiLU and its slope. */
#ifndef KERNELS_CUDA_MATH_CUH
#define KERNELS_CUDA_MATH_CUH

#include "kernels/cuda/launch.cuh"

__device__ static inline float silu_of(float x)
{
    return x / (1 + expf(-x));
}

/* s (1 + x (1-s)), s = 1/(1+e), e = exp(-x): 1-s = e s without cancellation. e stays finite, so
 * that e s does. */
__device__ static inline float silu_slope(float x)
{
    float e = expf(-fmaxf(x, -87)), s = 1 / (1 + e);
    return s * (1 + x * (e * s));
}

#endif
