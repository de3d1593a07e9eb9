#include "kernels/cuda/call.cuh"

constexpr int EMBEDDING_THREADS = 128;

/* Every operation rounds to float, as in the plain kernel: the frequencies of large timesteps feel
 * it. The functions go by way of double because a card's own are off by a last bit here and there,
 * which a timestep of a thousand makes large. */
__global__ void __launch_bounds__(EMBEDDING_THREADS)
    embed_timestep(const float *t, float rate, int channels, float *y)
{
    int half = channels / 2, i = blockIdx.x * EMBEDDING_THREADS + threadIdx.x;
    y += (size_t)blockIdx.y * channels;
    if (i < half) {
        float frequency = (float)exp((double)(__fmul_rn(rate, (float)i) / (float)half));
        double angle = __fmul_rn(t[blockIdx.y], frequency);
        y[i] = (float)cos(angle);
        y[half + i] = (float)sin(angle);
    }
    if (i == half && channels % 2)
        y[channels - 1] = 0;
}

void cuda_timestep_embedding(const kernel_call *call)
{
    int channels = (int)call->output[0].shape[3];
    float rate = (float)-log(call->attributes->timestep.max_period);
    dim3 grid((unsigned)ceil_divide(channels / 2 + 1, EMBEDDING_THREADS),
              (unsigned)call->input[0].shape[0]);
    LAUNCH(embed_timestep, grid, EMBEDDING_THREADS, 0, stream_of(call), input_of(call, 0), rate,
           channels, output_of(call, 0));
}
