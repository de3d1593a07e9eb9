#include "kernels/cuda/math.cuh"
#include "kernels/cuda/pack.cuh"

struct silu_function {
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[1], float y[1]) const
    {
        y[0] = silu_of(x[0]);
    }
};

struct silu_backward_function {
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[2], float dx[1]) const
    {
        dx[0] = x[0] * silu_slope(x[1]);
    }
};

template <typename T> static void silu(const kernel_call *call)
{
    map_arrays<1, 1, T> arrays = {
        {input_of<T>(call, 0)}, {output_of<T>(call, 0)}, (size_t)tensor_elements(&call->input[0])};
    map(call, silu_function(), arrays);
}

void cuda_silu(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], silu, call);
}

template <typename T> static void silu_backward(const kernel_call *call)
{
    map_arrays<2, 1, T> arrays = {{input_of<T>(call, 0), input_of<T>(call, 1)},
                                  {output_of<T>(call, 0)},
                                  (size_t)tensor_elements(&call->input[0])};
    map(call, silu_backward_function(), arrays);
}

void cuda_silu_backward(const kernel_call *call)
{
    BY_ELEMENT(call->input[0], silu_backward, call);
}
