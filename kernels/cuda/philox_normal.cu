#include "kernels/cuda/call.cuh"
#include "kernels/normal.h"
#include "kernels/philox.h"

constexpr unsigned NORMAL_THREADS = 128;

struct normal_shape {
    unsigned pixels, channels, count;
};

/* Elements are counted in NCHW order and stored in NHWC. */
__device__ static inline size_t stored_at(const normal_shape &s, unsigned element)
{
    unsigned plane = element / s.pixels, pixel = element % s.pixels;
    unsigned picture = plane / s.channels, channel = plane % s.channels;
    return ((size_t)picture * s.pixels + pixel) * s.channels + channel;
}

/* A thread's four normals are one block of the generator. */
__global__ void __launch_bounds__(NORMAL_THREADS)
    draw_normals(const int *state, normal_shape s, float *y)
{
    unsigned block = blockIdx.x * NORMAL_THREADS + threadIdx.x;
    if (block >= ceil_divide(s.count, 4u))
        return;
    uint32_t key[2] = {(uint32_t)state[0], (uint32_t)state[1]};
    uint32_t counter[4] = {block, 0, (uint32_t)state[3], (uint32_t)state[2]}, bits[4];
    float normal[4];
    philox4x32_10(key, counter, bits);
    normal_pair(bits[0], bits[1], normal);
    normal_pair(bits[2], bits[3], normal + 2);
    for (unsigned i = 0; i < 4; i++)
        if (4 * block + i < s.count)
            y[stored_at(s, 4 * block + i)] = normal[i];
}

__global__ void advance_draw(int *state)
{
    state[3] = (int)((unsigned)state[3] + 1);
}

void cuda_philox_normal(const kernel_call *call)
{
    const int64_t *shape = call->output[0].shape;
    normal_shape s = {(unsigned)(shape[1] * shape[2]), (unsigned)shape[3],
                      (unsigned)tensor_elements(&call->output[0])};
    int *state = output_of<int>(call, 1);
    LAUNCH(draw_normals, ceil_divide(ceil_divide(s.count, 4u), NORMAL_THREADS), NORMAL_THREADS, 0,
           stream_of(call), state, s, output_of(call, 0));
    LAUNCH(advance_draw, 1, 1, 0, stream_of(call), state);
}
