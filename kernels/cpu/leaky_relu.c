#include "kernels/cpu/math.h"

/* y = x where `sign` is positive, else slope*x */
static void damp(const struct kernel_call *call, const float *x, const float *sign)
{
    const float slope = (float)call->attributes->leaky_relu.slope;
    float *y = call->output[0].data;
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES) {
        vector_f32 passed = vector_load_some(x + i, n - i);
        vector_i32 positive = vector_load_some(sign + i, n - i) > 0;
        vector_store_some(y + i, vector_select(positive, passed, slope * passed), n - i);
    }
}

void ISA_NAME(leaky_relu)(const struct kernel_call *call)
{
    damp(call, call->input[0].data, call->input[0].data);
}

void ISA_NAME(leaky_relu_backward)(const struct kernel_call *call)
{
    damp(call, call->input[0].data, call->input[1].data);
}
