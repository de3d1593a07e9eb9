/* A sparse linear map along one axis. */
#include "kernels/cuda/pack.cuh"

constexpr unsigned FILTER_THREADS = 256;

/* Along the axis `inputs` or `outputs` long, `inner` neighbouring elements share an index. */
struct axis_shape {
    unsigned inputs, outputs, inner;
};

template <unsigned WIDTH>
__global__ void __launch_bounds__(FILTER_THREADS)
    filter_axis(axis_shape s, const float *x, const int *offsets, const int *indices,
                const float *weights, float *y)
{
    unsigned i = (blockIdx.y * FILTER_THREADS + threadIdx.x) * WIDTH;
    if (i >= s.outputs * s.inner)
        return;
    unsigned output = i / s.inner;
    x += (size_t)blockIdx.x * s.inputs * s.inner + i % s.inner;
    pack<WIDTH> sum = {};
    for (int j = offsets[output]; j < offsets[output + 1]; j++) {
        pack<WIDTH> value = load_pack<WIDTH>(x + (size_t)indices[j] * s.inner);
        for (unsigned k = 0; k < WIDTH; k++)
            sum.at[k] += weights[j] * value.at[k];
    }
    store_pack(y + (size_t)blockIdx.x * s.outputs * s.inner + i, sum);
}

void cuda_axis_filter(const kernel_call *call)
{
    const int64_t *in = call->input[0].shape;
    int axis = call->attributes->axis_filter.axis;
    unsigned outer = (unsigned)(axis == 1 ? in[0] : in[0] * in[1]);
    axis_shape s = {(unsigned)in[axis], (unsigned)call->output[0].shape[axis],
                    (unsigned)(axis == 1 ? in[2] * in[3] : in[3])};
    unsigned width = s.inner % PACK == 0 ? PACK : 1;
    dim3 grid(outer, ceil_divide(s.outputs * s.inner / width, FILTER_THREADS));
    if (width == PACK)
        LAUNCH(filter_axis<PACK>, grid, FILTER_THREADS, 0, stream_of(call), s, input_of(call, 0),
               input_of<int>(call, 1), input_of<int>(call, 2), input_of(call, 3),
               output_of(call, 0));
    else
        LAUNCH(filter_axis<1>, grid, FILTER_THREADS, 0, stream_of(call), s, input_of(call, 0),
               input_of<int>(call, 1), input_of<int>(call, 2), input_of(call, 3),
               output_of(call, 0));
}
