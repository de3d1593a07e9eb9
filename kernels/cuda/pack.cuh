/* The kernel that maps a function over whole tensors, and the width of a pack in those that have
 * channels. */
#ifndef KERNELS_CUDA_PACK_CUH
#define KERNELS_CUDA_PACK_CUH

#include "kernels/cuda/call.cuh"
#include "kernels/cuda/element.cuh"

/* Elements that a thread loads or stores at once: 128 bits of floats, 64 of bf16, so that threads
 * and registers are the same for both. */
constexpr unsigned PACK = 4;

/* Left to itself, ptxas spills a few registers to fit more blocks than that. */
constexpr unsigned MAP_THREADS = 256, BLOCKS_PER_SM = 4;

template <int INPUTS, int OUTPUTS, typename T = float> struct map_arrays {
    const T *in[INPUTS];
    T *out[OUTPUTS];
    size_t count;
};

template <unsigned WIDTH, typename Function, int INPUTS, int OUTPUTS, typename T>
__device__ static inline void map_pack(const Function &function,
                                       const map_arrays<INPUTS, OUTPUTS, T> &arrays, size_t at)
{
    pack<WIDTH> in[INPUTS], out[OUTPUTS];
    for (int i = 0; i < INPUTS; i++)
        in[i] = load_pack<WIDTH>(arrays.in[i] + at);
    for (unsigned k = 0; k < WIDTH; k++) {
        float x[INPUTS], y[OUTPUTS];
        for (int i = 0; i < INPUTS; i++)
            x[i] = in[i].at[k];
        function(x, y);
        for (int i = 0; i < OUTPUTS; i++)
            out[i].at[k] = y[i];
    }
    for (int i = 0; i < OUTPUTS; i++)
        store_pack(arrays.out[i] + at, out[i]);
}

/* All inputs are read before any output is written: an output may be an input's memory. */
template <typename Function, int INPUTS, int OUTPUTS, typename T>
__global__ void __launch_bounds__(MAP_THREADS, BLOCKS_PER_SM)
    map_elements(Function function, map_arrays<INPUTS, OUTPUTS, T> arrays)
{
    size_t at = ((size_t)blockIdx.x * MAP_THREADS + threadIdx.x) * PACK;
    if (at >= arrays.count || !function.prepare())
        return;
    if (at + PACK <= arrays.count)
        map_pack<PACK>(function, arrays, at);
    else
        for (; at < arrays.count; at++)
            map_pack<1>(function, arrays, at);
}

/* function(x, y) sets an element of each output from one of each input; function.prepare(), once a
 * thread, fetches what lies on the device and tells whether there is anything to do. */
template <typename Function, int INPUTS, int OUTPUTS, typename T>
static inline void map(const kernel_call *call, const Function &function,
                       const map_arrays<INPUTS, OUTPUTS, T> &arrays)
{
    unsigned blocks = (unsigned)ceil_divide<size_t>(arrays.count, MAP_THREADS * PACK);
    LAUNCH((map_elements<Function, INPUTS, OUTPUTS, T>), blocks, MAP_THREADS, 0, stream_of(call),
           function, arrays);
}

#endif
