#include "kernels/cpu/math.h"

/* The forward pass, of time embeddings alone, is the plain kernel: exact at no cost. */
void ISA_NAME(silu_backward)(const struct kernel_call *call)
{
    const float *dy = call->input[0].data, *x = call->input[1].data;
    float *dx = call->output[0].data;
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t i = 0; i < n; i += LANES) {
        vector_f32 derivative = vector_silu_derivative(vector_load_some(x + i, n - i));
        vector_store_some(dx + i, vector_load_some(dy + i, n - i) * derivative, n - i);
    }
}
