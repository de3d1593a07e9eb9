#include "kernels/cuda/pack.cuh"

/* What the step's number or its control decides, computed once for all elements. */
struct adam_corrections {
    float size, correction;
    float keep;  /* what weight decay leaves */
    float scale; /* of g */
    bool skipped;
};

struct adam_function {
    const adam_corrections *corrections;
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float epsilon;
    adam_corrections step;
    __device__ bool prepare()
    {
        step = *corrections;
        return !step.skipped;
    }
    /* x: p, g, m, v; y: p, m, v */
    __device__ void operator()(const float x[4], float y[3]) const
    {
        float g = step.scale * x[1];
        y[1] = beta1 * x[2] + rest1 * g;
        y[2] = beta2 * x[3] + rest2 * (g * g);
        y[0] = step.keep * x[0] - step.size * y[1] / (sqrtf(y[2]) * step.correction + epsilon);
    }
};

static void update(const kernel_call *call)
{
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    adam_function function = {static_cast<adam_corrections *>(call->workspace),
                              (float)beta1,
                              (float)beta2,
                              (float)(1 - beta1),
                              (float)(1 - beta2),
                              (float)call->attributes->adam.epsilon,
                              {}};
    float *p = output_of(call, 0), *m = output_of(call, 1), *v = output_of(call, 2);
    map(call, function,
        map_arrays<4, 3>{
            {p, input_of(call, 1), m, v}, {p, m, v}, (size_t)tensor_elements(&call->input[0])});
}

__global__ void advance_adam(int *step, double rate, double decay, double beta1, double beta2,
                             adam_corrections *corrections)
{
    int next = *step + 1;
    *step = next;
    corrections->size = (float)(rate / (1 - pow(beta1, (double)next)));
    corrections->correction = (float)(1 / sqrt(1 - pow(beta2, (double)next)));
    corrections->keep = (float)(1 - rate * decay);
    corrections->scale = 1;
    corrections->skipped = false;
}

size_t cuda_adam_step_workspace(const kernel_call *call)
{
    (void)call;
    return sizeof(adam_corrections);
}

void cuda_adam_step(const kernel_call *call)
{
    const auto &adam = call->attributes->adam;
    LAUNCH(advance_adam, 1, 1, 0, stream_of(call), output_of<int>(call, 3), adam.learning_rate,
           adam.weight_decay, adam.beta1, adam.beta2,
           static_cast<adam_corrections *>(call->workspace));
    update(call);
}

__global__ void control_adam(const float *control, const float *squared_norm, double decay,
                             adam_corrections *corrections)
{
    double rate = control[OPTIMISER_LEARNING_RATE], scale = control[OPTIMISER_SCALE];
    double clip = control[OPTIMISER_CLIP], norm = sqrt((double)*squared_norm) * scale;
    if (clip > 0 && norm > clip)
        scale *= clip / (norm + 1e-6);
    corrections->size = (float)(rate / control[OPTIMISER_CORRECTION1]);
    corrections->correction = (float)(1 / sqrt((double)control[OPTIMISER_CORRECTION2]));
    corrections->keep = (float)(1 - rate * decay);
    corrections->scale = (float)scale;
    corrections->skipped = !(norm <= 1e300);
}

size_t cuda_adamw_step_workspace(const kernel_call *call)
{
    (void)call;
    return sizeof(adam_corrections);
}

void cuda_adamw_step(const kernel_call *call)
{
    LAUNCH(control_adam, 1, 1, 0, stream_of(call), input_of(call, 4), input_of(call, 5),
           call->attributes->adam.weight_decay, static_cast<adam_corrections *>(call->workspace));
    update(call);
}
