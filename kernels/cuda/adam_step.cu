#include "kernels/cuda/pack.cuh"

/* What the step's number decides, computed once for all elements. */
struct adam_corrections {
    float size, correction;
};

struct adam_function {
    const adam_corrections *corrections;
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float keep;                       /* what weight decay leaves */
    float epsilon;
    adam_corrections step;
    __device__ bool prepare()
    {
        step = *corrections;
        return true;
    }
    /* x: p, g, m, v; y: p, m, v */
    __device__ void operator()(const float x[4], float y[3]) const
    {
        y[1] = beta1 * x[2] + rest1 * x[1];
        y[2] = beta2 * x[3] + rest2 * (x[1] * x[1]);
        y[0] = keep * x[0] - step.size * y[1] / (sqrtf(y[2]) * step.correction + epsilon);
    }
};

__global__ void advance_adam(int *step, double rate, double beta1, double beta2,
                             adam_corrections *corrections)
{
    int next = *step + 1;
    *step = next;
    corrections->size = (float)(rate / (1 - pow(beta1, (double)next)));
    corrections->correction = (float)(1 / sqrt(1 - pow(beta2, (double)next)));
}

size_t cuda_adam_step_workspace(const kernel_call *call)
{
    (void)call;
    return sizeof(adam_corrections);
}

void cuda_adam_step(const kernel_call *call)
{
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    double rate = call->attributes->adam.learning_rate;
    double decay = call->attributes->adam.weight_decay;
    adam_corrections *corrections = static_cast<adam_corrections *>(call->workspace);
    adam_function function = {corrections,
                              (float)beta1,
                              (float)beta2,
                              (float)(1 - beta1),
                              (float)(1 - beta2),
                              (float)(1 - rate * decay),
                              (float)call->attributes->adam.epsilon,
                              {}};
    float *p = output_of(call, 0), *m = output_of(call, 1), *v = output_of(call, 2);
    LAUNCH(advance_adam, 1, 1, 0, stream_of(call), output_of<int>(call, 3), rate, beta1, beta2,
           corrections);
    map(call, function,
        map_arrays<4, 3>{
            {p, input_of(call, 1), m, v}, {p, m, v}, (size_t)tensor_elements(&call->input[0])});
}
