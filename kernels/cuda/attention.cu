/* The host side of attention: which kernels, and their workspace. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention.cuh"

#include <math.h>

static attention attention_of(const struct kernel_call *call, const struct tensor *qkv)
{
    attention a = {};
    a.element = qkv->type;
    a.qkv = qkv->data;
    a.result = call->output[0].data;
    a.pictures = (int)qkv->shape[0];
    a.heads = call->attributes->attention.heads;
    a.tokens = (int)(qkv->shape[1] * qkv->shape[2]);
    a.width = (int)qkv->shape[3] / 3 / a.heads;
    a.scale = (float)(1 / sqrt((double)a.width));
    return a;
}

/* ---- forward ---- */
size_t cuda_attention_workspace(const struct kernel_call *call)
{
    attention a = attention_of(call, &call->input[0]);
    return a.width <= CUDA_ATTENTION_NARROW ? 0
                                            : wide_scratch(a, 1, output_stride(a)) * sizeof(float);
}

void cuda_attention(const struct kernel_call *call)
{
    attention a = attention_of(call, &call->input[0]);
    a.result_lse = (float *)call->output[1].data;
    a.scratch = (float *)call->workspace;
    if (a.width <= CUDA_ATTENTION_NARROW)
        launch_narrow_attention(a, (cudaStream_t)call->stream);
    else
        launch_wide_attention(a, (cudaStream_t)call->stream);
}

/* ---- derivatives ---- */
enum { INNER_THREADS = 256, INNER_WARPS = INNER_THREADS / 32 };

/* <d_o, o> of every token of every head, a warp each. */
template <typename T>
__global__ void __launch_bounds__(INNER_THREADS) inner_products(const attention a)
{
    int number = blockIdx.x * INNER_WARPS + threadIdx.x / 32;
    int pair = number / a.tokens;
    if (pair >= a.pictures * a.heads)
        return;
    size_t row = head_place(a, pair).output + number % a.tokens * output_stride(a);
    const T *d_o = static_cast<const T *>(a.d_o) + row, *o = static_cast<const T *>(a.o) + row;
    float sum = 0;
    for (int i = threadIdx.x % 32; i < a.width; i += 32)
        sum = fmaf(load_one(d_o + i), load_one(o + i), sum);
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffff, sum, distance);
    if (threadIdx.x % 32 == 0)
        a.inner[number] = sum;
}

template <typename T> static void launch_inner_products(const attention &a, cudaStream_t stream)
{
    unsigned blocks = (unsigned)ceil_divide(a.pictures * a.heads * a.tokens, INNER_WARPS);
    LAUNCH(inner_products<T>, blocks, INNER_THREADS, 0, stream, a);
}

/* Floats of `inner`, with the scratch behind it aligned. */
static size_t inner_floats(const attention &a)
{
    enum { ALIGNMENT = 64 };
    return (size_t)ceil_divide(a.pictures * a.heads * a.tokens, ALIGNMENT) * ALIGNMENT;
}

size_t cuda_attention_backward_workspace(const struct kernel_call *call)
{
    attention a = attention_of(call, &call->input[1]);
    bool narrow = a.width <= CUDA_ATTENTION_NARROW_DERIVATIVE;
    return (inner_floats(a) + (narrow ? 0 : wide_scratch(a, 2, packed_stride(a)))) * sizeof(float);
}

void cuda_attention_backward(const struct kernel_call *call)
{
    cudaStream_t stream = (cudaStream_t)call->stream;
    attention a = attention_of(call, &call->input[1]);
    a.d_o = call->input[0].data;
    a.o = call->input[2].data;
    a.lse = (const float *)call->input[3].data;
    a.inner = (float *)call->workspace;
    a.scratch = a.inner + inner_floats(a);
    BY_ELEMENT(*call->input, launch_inner_products, a, stream);
    if (a.width <= CUDA_ATTENTION_NARROW_DERIVATIVE)
        launch_narrow_backward(a, stream);
    else
        launch_wide_backward(a, stream);
}

size_t cuda_attention_jvp_workspace(const struct kernel_call *call)
{
    attention a = attention_of(call, &call->input[1]);
    return a.width <= CUDA_ATTENTION_NARROW_DERIVATIVE
               ? 0
               : wide_scratch(a, 2, output_stride(a)) * sizeof(float);
}

void cuda_attention_jvp(const struct kernel_call *call)
{
    attention a = attention_of(call, &call->input[1]);
    a.dqkv = call->input[0].data;
    a.o = call->input[2].data;
    a.lse = (const float *)call->input[3].data;
    a.scratch = (float *)call->workspace;
    if (a.width <= CUDA_ATTENTION_NARROW_DERIVATIVE)
        launch_narrow_jvp(a, (cudaStream_t)call->stream);
    else
        launch_wide_jvp(a, (cudaStream_t)call->stream);
}
