#include "kernels/plain/plain.h"

void PLAIN(leaky_relu)(const struct kernel_call *call)
{
    const real *x = input_data(call, 0), slope = (real)call->attributes->leaky_relu.slope;
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = x[i] > 0 ? x[i] : slope * x[i];
}

void PLAIN(leaky_relu_backward)(const struct kernel_call *call)
{
    const real *dy = input_data(call, 0), *x = input_data(call, 1);
    const real slope = (real)call->attributes->leaky_relu.slope;
    real *dx = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        dx[i] = x[i] > 0 ? dy[i] : slope * dy[i];
}
