/* WIDTH neighbouring floats that are loaded and stored at once, and the kernel that maps a function
 * over whole tensors by packs of four. */
#ifndef KERNELS_CUDA_PACK_CUH
#define KERNELS_CUDA_PACK_CUH

#include "kernels/cuda/call.cuh"

constexpr unsigned PACK = 4; /* floats: a 128-bit access */

template <unsigned WIDTH> struct alignas(4 * WIDTH) pack {
    float at[WIDTH];
};

template <unsigned WIDTH> __device__ static inline pack<WIDTH> load_pack(const float *p)
{
    return *reinterpret_cast<const pack<WIDTH> *>(p);
}

template <unsigned WIDTH>
__device__ static inline void store_pack(float *p, const pack<WIDTH> &value)
{
    *reinterpret_cast<pack<WIDTH> *>(p) = value;
}

/* Left to itself, ptxas spills a few registers to fit more blocks than that. */
constexpr unsigned MAP_THREADS = 256, BLOCKS_PER_SM = 4;

template <int INPUTS, int OUTPUTS> struct map_arrays {
    const float *in[INPUTS];
    float *out[OUTPUTS];
    size_t count;
};

template <unsigned WIDTH, typename Function, int INPUTS, int OUTPUTS>
__device__ static inline void map_pack(const Function &function,
                                       const map_arrays<INPUTS, OUTPUTS> &arrays, size_t at)
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
template <typename Function, int INPUTS, int OUTPUTS>
__global__ void __launch_bounds__(MAP_THREADS, BLOCKS_PER_SM)
    map_elements(Function function, map_arrays<INPUTS, OUTPUTS> arrays)
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
template <typename Function, int INPUTS, int OUTPUTS>
static inline void map(const kernel_call *call, const Function &function,
                       const map_arrays<INPUTS, OUTPUTS> &arrays)
{
    unsigned blocks = (unsigned)ceil_divide<size_t>(arrays.count, MAP_THREADS * PACK);
    LAUNCH((map_elements<Function, INPUTS, OUTPUTS>), blocks, MAP_THREADS, 0, stream_of(call),
           function, arrays);
}

#endif
