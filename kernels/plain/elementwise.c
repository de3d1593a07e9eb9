#include "kernels/bfloat16.h"
#include "kernels/plain/plain.h"

#include <string.h>

void PLAIN(combine)(const struct kernel_call *call)
{
    const real *a = input_data(call, 0), *b = input_data(call, 1);
    double alpha = call->attributes->combine.alpha, beta = call->attributes->combine.beta;
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = (real)(b ? alpha * a[i] + beta * b[i] : alpha * a[i]);
}

void PLAIN(combine_scaled)(const struct kernel_call *call)
{
    const real *a = input_data(call, 0), *b = input_data(call, 1);
    double factor =
        call->attributes->combine.beta * input_data(call, 2)[call->attributes->combine.index];
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = (real)(a[i] + factor * b[i]);
}

void PLAIN(multiply)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int64_t picture = shape[1] * shape[2] * shape[3];
    int64_t repeat = shape[3] / call->input[1].shape[3];
    const real *x = input_data(call, 0), *m = input_data(call, 1);
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = x[i] * m[i % picture / repeat];
}

void PLAIN(add_channel)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int64_t picture = shape[1] * shape[2] * shape[3];
    const real *x = input_data(call, 0), *b = input_data(call, 1);
    real *y = output_data(call, 0);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        y[i] = x[i] + b[i / picture * shape[3] + i % shape[3]];
}

void PLAIN(sum_spatial)(const struct kernel_call *call)
{
    const int64_t *shape = call->input[0].shape;
    int64_t pixels = shape[1] * shape[2];
    const real *x = input_data(call, 0);
    for (int64_t n = 0; n < shape[0]; n++)
        for (int64_t c = 0; c < shape[3]; c++) {
            double sum = 0;
            for (int64_t p = 0; p < pixels; p++)
                sum += x[(n * pixels + p) * shape[3] + c];
            output_data(call, 0)[n * shape[3] + c] = (real)sum;
        }
}

void PLAIN(sum_pixels)(const struct kernel_call *call)
{
    int64_t channels = call->input[0].shape[3], count = tensor_elements(&call->input[0]);
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t i = c; i < count; i += channels)
            sum += input_data(call, 0)[i];
        output_data(call, 0)[c] = (real)sum;
    }
}

void PLAIN(copy)(const struct kernel_call *call)
{
    const struct tensor *x = &call->input[0];
    memcpy(call->output[0].data, x->data, (size_t)tensor_elements(x) * element_bytes(x->type));
}

void PLAIN(reshape)(const struct kernel_call *call)
{
    if (call->output[0].data != call->input[0].data)
        PLAIN(copy)(call);
}

void PLAIN(cast)(const struct kernel_call *call)
{
    const void *x = call->input[0].data;
    void *y = call->output[0].data;
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        if (call->output[0].type == TYPE_BF16)
            ((uint16_t *)y)[i] = bfloat16_from_float((float)((const real *)x)[i]);
        else
            ((real *)y)[i] = float_from_bfloat16(((const uint16_t *)x)[i]);
}
