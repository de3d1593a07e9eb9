#include "kernels/plain/plain.h"

#include <math.h>

void PLAIN(silu)(const struct kernel_call *call)
{
    const real *x = input_data(call, 0);
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = (real)(x[i] / (1 + exp(-(double)x[i])));
}

void PLAIN(silu_backward)(const struct kernel_call *call)
{
    const real *dy = input_data(call, 0), *x = input_data(call, 1);
    real *dx = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++) {
        double u = x[i];
        dx[i] = (real)(dy[i] * (1 + u / (1 + exp(u))) / (1 + exp(-u)));
    }
}
