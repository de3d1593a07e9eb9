#include "kernels/cpu/math.h"

static int64_t pixels_of(const struct tensor *tensor)
{
    return tensor->shape[0] * tensor->shape[1] * tensor->shape[2];
}

void ISA_NAME(concat_channels)(const struct kernel_call *call)
{
    int64_t a = call->input[0].shape[3], b = call->input[1].shape[3];
    const float *first = call->input[0].data, *second = call->input[1].data;
    float *y = call->output[0].data;
#pragma omp parallel for num_threads(threads_for(call, tensor_elements(&call->output[0])))
    for (int64_t p = 0; p < pixels_of(&call->input[0]); p++) {
        memcpy(y + p * (a + b), first + p * a, (size_t)a * sizeof(float));
        memcpy(y + p * (a + b) + a, second + p * b, (size_t)b * sizeof(float));
    }
}
