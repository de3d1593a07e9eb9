/* Sums over the threads of a block, always in the same order. */
#ifndef KERNELS_CUDA_REDUCE_CUH
#define KERNELS_CUDA_REDUCE_CUH

constexpr unsigned WARP = 32, REDUCE_THREADS = 256, REDUCE_WARPS = REDUCE_THREADS / WARP;

__device__ static inline double warp_sum(double value)
{
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffff, value, distance);
    return value;
}

/* The sum over REDUCE_THREADS threads, for all of them. `shared` is this sum's alone. */
__device__ static inline double block_sum(double value, double shared[REDUCE_WARPS])
{
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = value;
    __syncthreads();
    double sum = 0;
    for (unsigned warp = 0; warp < REDUCE_WARPS; warp++)
        sum += shared[warp];
    return sum;
}

#endif
