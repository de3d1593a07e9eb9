#include "kernels/cuda/pack.cuh"

/* x: what is passed on or damped, and what decides by its sign, its last */
template <int INPUTS> struct leaky_relu_function {
    float slope;
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[INPUTS], float y[1]) const
    {
        y[0] = x[INPUTS - 1] > 0 ? x[0] : slope * x[0];
    }
};

static float slope_of(const kernel_call *call)
{
    return (float)call->attributes->leaky_relu.slope;
}

void cuda_leaky_relu(const kernel_call *call)
{
    map(call, leaky_relu_function<1>{slope_of(call)},
        map_arrays<1, 1>{
            {input_of(call, 0)}, {output_of(call, 0)}, (size_t)tensor_elements(&call->input[0])});
}

void cuda_leaky_relu_backward(const kernel_call *call)
{
    map(call, leaky_relu_function<2>{slope_of(call)},
        map_arrays<2, 1>{{input_of(call, 0), input_of(call, 1)},
                         {output_of(call, 0)},
                         (size_t)tensor_elements(&call->input[0])});
}
