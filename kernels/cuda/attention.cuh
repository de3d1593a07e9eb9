/* What the attention kernels share: where a head's rows lie. */
#ifndef KERNELS_CUDA_ATTENTION_CUH
#define KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/product.cuh"
#include "kernels/kernels.h"

struct attention {
    enum element_type element; /* of these and of the result, TYPE_F32 or TYPE_BF16 */
    const void *qkv, *dqkv, *o, *d_o;
    void *result;
    const float *lse;
    float *result_lse;
    float *inner;   /* of d_o and o, a number per head and token */
    float *scratch; /* of the heads that go chunk by chunk */
    int pictures, heads, tokens, width;
    float scale;
};

/* A pair of picture and head: offsets of its first token in qkv, in o and in lse. */
struct head_place {
    size_t packed, output, number;

    __host__ __device__ __forceinline__ head_place(const attention &a, int pair)
    {
        size_t picture = pair / a.heads, head = pair % a.heads;
        output = (picture * a.tokens * a.heads + head) * a.width;
        packed = 3 * output;
        number = (size_t)pair * a.tokens;
    }
};

static __host__ __device__ __forceinline__ size_t packed_stride(const attention &a)
{
    return (size_t)3 * a.heads * a.width;
}

static __host__ __device__ __forceinline__ size_t output_stride(const attention &a)
{
    return (size_t)a.heads * a.width;
}

/* Narrow heads, in one kernel each (two backwards). */
void launch_narrow_attention(const attention &a, cudaStream_t stream);
void launch_narrow_backward(const attention &a, cudaStream_t stream);
void launch_narrow_jvp(const attention &a, cudaStream_t stream);

/* Heads of any width, by chunks of queries; floats of scratch for `matrices` chunks of scores and,
 * where the result is bf16, for its `columns` numbers a token in f32. */
size_t wide_scratch(const attention &a, int matrices, size_t columns);
void launch_wide_attention(const attention &a, cudaStream_t stream);
void launch_wide_backward(const attention &a, cudaStream_t stream);
void launch_wide_jvp(const attention &a, cudaStream_t stream);

#endif
