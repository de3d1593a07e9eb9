#include "kernels/cuda/pack.cuh"

/* ---- steps of the chain ---- */
struct ddim_function {
    const float *coefficients;
    float root, root_rest, variance, root_previous, direction, sigma; /* root_rest: of 1 - a */
    __device__ bool prepare()
    {
        root = coefficients[DDIM_SQRT_A];
        root_rest = coefficients[DDIM_SQRT_ONE_MINUS_A];
        variance = root_rest * root_rest;
        root_previous = coefficients[DDIM_SQRT_A_PREV];
        direction = coefficients[DDIM_DIRECTION];
        sigma = coefficients[DDIM_SIGMA];
        return true;
    }
    __device__ void step(float x, float e, float y[3]) const
    {
        y[1] = (x - root_rest * e) / root;
        y[2] = (x - variance * e) / root;
        y[0] = root_previous * y[1] + direction * e;
    }
};

struct quiet_ddim_function : ddim_function {
    __device__ void operator()(const float x[2], float y[3]) const
    {
        step(x[0], x[1], y);
    }
};

struct noisy_ddim_function : ddim_function {
    __device__ void operator()(const float x[3], float y[3]) const
    {
        step(x[0], x[1], y);
        y[0] += sigma * x[2];
    }
};

void cuda_ddim_step(const kernel_call *call)
{
    const float *x = input_of(call, 0), *e = input_of(call, 1), *noise = input_of(call, 2);
    float *next = output_of(call, 0), *x0 = output_of(call, 1), *pseudo = output_of(call, 2);
    size_t count = (size_t)tensor_elements(&call->input[0]);
    quiet_ddim_function quiet = {};
    noisy_ddim_function noisy = {};
    quiet.coefficients = noisy.coefficients = input_of(call, 3);
    if (noise)
        map(call, noisy, map_arrays<3, 3>{{x, e, noise}, {next, x0, pseudo}, count});
    else
        map(call, quiet, map_arrays<2, 3>{{x, e}, {next, x0, pseudo}, count});
}

struct resample_function {
    const float *coefficients;
    float weight_z0, weight_x, deviation;
    __device__ bool prepare()
    {
        weight_z0 = coefficients[RESAMPLE_WEIGHT_Z0];
        weight_x = coefficients[RESAMPLE_WEIGHT_X];
        deviation = coefficients[RESAMPLE_DEVIATION];
        return true;
    }
    __device__ void operator()(const float x[3], float y[1]) const
    {
        y[0] = weight_z0 * x[0] + weight_x * x[1] + deviation * x[2];
    }
};

void cuda_stochastic_resample(const kernel_call *call)
{
    resample_function function = {input_of(call, 3), 0, 0, 0};
    map(call, function,
        map_arrays<3, 1>{{input_of(call, 0), input_of(call, 1), input_of(call, 2)},
                         {output_of(call, 0)},
                         (size_t)tensor_elements(&call->input[0])});
}

/* ---- when to stop, and with what ---- */
__global__ void judge_loss(const float *loss, double threshold, bool inclusive, int length,
                           float *window, int *stop, int *iteration)
{
    float value = *loss;
    int now = *iteration;
    float *slot = window + (length > 0 ? now % length : 0);
    bool reached = inclusive ? value <= threshold : value < threshold;
    bool plateau = length > 0 && now >= length && *slot < value;
    *stop = reached || plateau || !isfinite(value);
    if (length > 0)
        *slot = value;
    *iteration = now + 1;
}

void cuda_stop_rule(const kernel_call *call)
{
    float *window = output_of(call, 1);
    int length = window ? (int)call->output[1].shape[3] : 0;
    LAUNCH(judge_loss, 1, 1, 0, stream_of(call), input_of(call, 0),
           call->attributes->stop.threshold, call->attributes->stop.inclusive, length, window,
           output_of<int>(call, 0), output_of<int>(call, 2));
}

struct better_function {
    const float *loss, *best_loss;
    __device__ bool prepare()
    {
        return *loss < *best_loss;
    }
    __device__ void operator()(const float x[1], float y[1]) const
    {
        y[0] = x[0];
    }
};

__global__ void record_loss(const float *loss, float *best_loss)
{
    if (*loss < *best_loss)
        *best_loss = *loss;
}

/* All blocks compare with the old loss before a second launch replaces it. */
void cuda_keep_best(const kernel_call *call)
{
    float *best_loss = output_of(call, 0);
    map(call, better_function{input_of(call, 0), best_loss},
        map_arrays<1, 1>{
            {input_of(call, 1)}, {output_of(call, 1)}, (size_t)tensor_elements(&call->input[1])});
    LAUNCH(record_loss, 1, 1, 0, stream_of(call), input_of(call, 0), best_loss);
}

struct copy_function {
    __device__ bool prepare()
    {
        return true;
    }
    __device__ void operator()(const float x[1], float y[1]) const
    {
        y[0] = x[0];
    }
};

/* Words of four bytes, whatever they mean. */
void cuda_copy(const kernel_call *call)
{
    const tensor *x = &call->input[0];
    size_t words = (size_t)tensor_elements(x) * element_bytes(x->type) / sizeof(float);
    map(call, copy_function(), map_arrays<1, 1>{{input_of(call, 0)}, {output_of(call, 0)}, words});
}

void cuda_reshape(const kernel_call *call)
{
    if (call->output[0].data != call->input[0].data)
        cuda_copy(call);
}
