/* Codes by their indices, and back: a gradient for each code. */
#include "kernels/cuda/call.cuh"

constexpr unsigned TAKE_THREADS = 256;

__global__ void __launch_bounds__(TAKE_THREADS)
    take(const float *codebook, const int *index, unsigned width, size_t count, float *codes)
{
    size_t i = (size_t)blockIdx.x * TAKE_THREADS + threadIdx.x;
    if (i < count)
        codes[i] = codebook[(size_t)index[i / width] * width + i % width];
}

/* A thread has one number of the codebook and looks through all pixels for its code, in their
 * order. */
__global__ void __launch_bounds__(TAKE_THREADS)
    gather_gradients(const float *g, const int *index, unsigned pixels, unsigned width,
                     unsigned count, float *codebook)
{
    __shared__ int taken[TAKE_THREADS];
    unsigned i = blockIdx.x * TAKE_THREADS + threadIdx.x, code = i / width, channel = i % width;
    float sum = 0;
    for (unsigned first = 0; first < pixels; first += TAKE_THREADS) {
        __syncthreads(); /* all have looked through the last ones */
        if (first + threadIdx.x < pixels)
            taken[threadIdx.x] = index[first + threadIdx.x];
        __syncthreads();
        for (unsigned p = first; p < min(first + TAKE_THREADS, pixels); p++)
            if ((unsigned)taken[p - first] == code)
                sum += g[(size_t)p * width + channel];
    }
    if (i < count)
        codebook[i] = sum;
}

void cuda_take_codes(const kernel_call *call)
{
    size_t count = (size_t)tensor_elements(&call->output[0]);
    LAUNCH(take, (unsigned)ceil_divide<size_t>(count, TAKE_THREADS), TAKE_THREADS, 0,
           stream_of(call), input_of(call, 0), input_of<int>(call, 1),
           (unsigned)call->input[0].shape[3], count, output_of(call, 0));
}

void cuda_take_codes_backward(const kernel_call *call)
{
    unsigned count = (unsigned)tensor_elements(&call->output[0]);
    LAUNCH(gather_gradients, ceil_divide(count, TAKE_THREADS), TAKE_THREADS, 0, stream_of(call),
           input_of(call, 0), input_of<int>(call, 1), (unsigned)tensor_elements(&call->input[1]),
           (unsigned)call->input[0].shape[3], count, output_of(call, 0));
}
