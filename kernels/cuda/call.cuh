/* What the host functions beside the kernels share: the call's pointers and stream, and a name with
 * C linkage for every row of kernels.def. They launch on the call's stream and do nothing else: no
 * allocation, no synchronisation, no value read back, so that a CUDA graph can capture them. */
#ifndef KERNELS_CUDA_CALL_CUH
#define KERNELS_CUDA_CALL_CUH

#include "kernels/cuda/launch.cuh"

extern "C" {
#include "kernels/kernels.h"

#define KERNEL(name, inputs, outputs)                                                              \
    void cuda_##name(const struct kernel_call *call);                                              \
    size_t cuda_##name##_workspace(const struct kernel_call *call);
#include "kernels/kernels.def"
#undef KERNEL
}

template <typename T = float> static inline const T *input_of(const kernel_call *call, int i)
{
    return static_cast<const T *>(call->input[i].data);
}

template <typename T = float> static inline T *output_of(const kernel_call *call, int i)
{
    return static_cast<T *>(call->output[i].data);
}

static inline cudaStream_t stream_of(const kernel_call *call)
{
    return static_cast<cudaStream_t>(call->stream);
}

/* Elements of one picture of a batch. Kernels index them with 32 bits. */
static inline unsigned picture_elements(const tensor *tensor)
{
    return (unsigned)(tensor->shape[1] * tensor->shape[2] * tensor->shape[3]);
}

template <typename T> __host__ __device__ static inline T ceil_divide(T a, T b)
{
    return (a + b - 1) / b;
}

#endif
