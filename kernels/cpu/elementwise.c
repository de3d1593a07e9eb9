#include "kernels/cpu/math.h"

/* y = alpha*a + beta*b */
static void scaled_sum(const struct kernel_call *call, float alpha, float beta)
{
    const float *a = call->input[0].data, *b = call->input[1].data;
    float *y = call->output[0].data;
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES)
        vector_store_some(
            y + i, alpha * vector_load_some(a + i, n - i) + beta * vector_load_some(b + i, n - i),
            n - i);
}

static void scale(const struct kernel_call *call, float alpha)
{
    const float *a = call->input[0].data;
    float *y = call->output[0].data;
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES)
        vector_store_some(y + i, alpha * vector_load_some(a + i, n - i), n - i);
}

void ISA_NAME(combine)(const struct kernel_call *call)
{
    float alpha = (float)call->attributes->combine.alpha;
    if (call->input[1].data)
        scaled_sum(call, alpha, (float)call->attributes->combine.beta);
    else
        scale(call, alpha);
}

void ISA_NAME(combine_scaled)(const struct kernel_call *call)
{
    const float *coefficients = call->input[2].data;
    scaled_sum(
        call, 1,
        (float)(call->attributes->combine.beta * coefficients[call->attributes->combine.index]));
}

void ISA_NAME(multiply)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    const float *x = call->input[0].data, *m = call->input[1].data;
    float *y = call->output[0].data;
    int64_t pixels = shape[1] * shape[2], channels = shape[3], width = call->input[1].shape[3];
#pragma omp parallel for num_threads(threads_for(call, tensor_elements(&call->input[0])))
    for (int64_t p = 0; p < shape[0] * pixels; p++) {
        const float *mask = m + p % pixels * width;
        for (int64_t c = 0; c < channels; c++)
            y[p * channels + c] = x[p * channels + c] * mask[width == 1 ? 0 : c];
    }
}

void ISA_NAME(add_channel)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    const float *x = call->input[0].data, *b = call->input[1].data;
    float *y = call->output[0].data;
    int64_t pixels = shape[1] * shape[2], channels = shape[3];
#pragma omp parallel for num_threads(threads_for(call, tensor_elements(&call->input[0])))
    for (int64_t p = 0; p < shape[0] * pixels; p++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t i = p * channels + c, lanes = channels - c;
            vector_f32 sum = vector_load_some(x + i, lanes) +
                             vector_load_some(b + p / pixels * channels + c, lanes);
            vector_store_some(y + i, sum, lanes);
        }
}
