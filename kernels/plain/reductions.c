#include "kernels/plain/plain.h"

#include <math.h>

void PLAIN(mean_squared_error)(const struct kernel_call *call)
{
    const real *a = input_data(call, 0), *b = input_data(call, 1);
    int64_t n = tensor_elements(&call->input[0]);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - b[i];
        sum += d * d;
    }
    output_data(call, 0)[0] = (real)(sum / (double)n);
}

void PLAIN(mean_squared_error_backward)(const struct kernel_call *call)
{
    const real *a = input_data(call, 1), *b = input_data(call, 2);
    int64_t n = tensor_elements(&call->input[1]);
    double factor = input_data(call, 0)[0] * 2.0 / (double)n;
    for (int64_t i = 0; i < n; i++)
        output_data(call, 0)[i] = (real)(factor * ((double)a[i] - b[i]));
}

void PLAIN(mean_absolute_error)(const struct kernel_call *call)
{
    const real *a = input_data(call, 0), *b = input_data(call, 1);
    int64_t n = tensor_elements(&call->input[0]);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)a[i] - b[i]);
    output_data(call, 0)[0] = (real)(sum / (double)n);
}

void PLAIN(mean_absolute_error_backward)(const struct kernel_call *call)
{
    const real *a = input_data(call, 1), *b = input_data(call, 2);
    int64_t n = tensor_elements(&call->input[1]);
    double factor = input_data(call, 0)[0] / (double)n;
    for (int64_t i = 0; i < n; i++)
        output_data(call, 0)[i] = (real)(factor * ((a[i] > b[i]) - (a[i] < b[i])));
}

void PLAIN(l2_norm)(const struct kernel_call *call)
{
    const real *r = input_data(call, 0);
    double sum = 0;
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        sum += (double)r[i] * r[i];
    output_data(call, 0)[0] = (real)sqrt(sum);
}

void PLAIN(dot)(const struct kernel_call *call)
{
    const real *a = input_data(call, 0), *b = input_data(call, 1);
    double sum = 0;
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        sum += (double)a[i] * b[i];
    output_data(call, 0)[0] = (real)sum;
}

void PLAIN(l2_norm_backward)(const struct kernel_call *call)
{
    const real *r = input_data(call, 1);
    double norm = input_data(call, 2)[0];
    double factor = norm == 0 ? 0 : input_data(call, 0)[0] / norm;
    for (int64_t i = 0; i < tensor_elements(&call->input[1]); i++)
        output_data(call, 0)[i] = (real)(factor * r[i]);
}
