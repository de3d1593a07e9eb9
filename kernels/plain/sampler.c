#include "kernels/plain/plain.h"

#include <math.h>
#include <string.h>

void PLAIN(ddim_step)(const struct kernel_call *call)
{
    const real *x = input_data(call, 0), *e = input_data(call, 1), *noise = input_data(call, 2);
    const real *k = input_data(call, 3);
    real variance = k[DDIM_SQRT_ONE_MINUS_A] * k[DDIM_SQRT_ONE_MINUS_A];
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++) {
        real pred_x0 = (x[i] - k[DDIM_SQRT_ONE_MINUS_A] * e[i]) / k[DDIM_SQRT_A];
        real pseudo = (x[i] - variance * e[i]) / k[DDIM_SQRT_A];
        real next = k[DDIM_SQRT_A_PREV] * pred_x0 + k[DDIM_DIRECTION] * e[i];
        output_data(call, 0)[i] = noise ? next + k[DDIM_SIGMA] * noise[i] : next;
        output_data(call, 1)[i] = pred_x0;
        output_data(call, 2)[i] = pseudo;
    }
}

void PLAIN(stochastic_resample)(const struct kernel_call *call)
{
    const real *z0 = input_data(call, 0), *x = input_data(call, 1), *noise = input_data(call, 2);
    const real *k = input_data(call, 3);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++)
        output_data(call, 0)[i] = k[RESAMPLE_WEIGHT_Z0] * z0[i] + k[RESAMPLE_WEIGHT_X] * x[i] +
                                  k[RESAMPLE_DEVIATION] * noise[i];
}

void PLAIN(stop_rule)(const struct kernel_call *call)
{
    real loss = input_data(call, 0)[0];
    real *window = output_data(call, 1);
    int64_t length = window ? call->output[1].shape[3] : 0;
    int32_t *stop = call->output[0].data, *iteration = call->output[2].data;
    double threshold = call->attributes->stop.threshold;
    bool reached = call->attributes->stop.inclusive ? loss <= threshold : loss < threshold;
    real *slot = length > 0 ? window + *iteration % length : NULL;
    bool plateau = slot && *iteration >= length && *slot < loss;
    *stop = reached || plateau || !isfinite(loss);
    if (slot)
        *slot = loss;
    *iteration += 1;
}

void PLAIN(keep_best)(const struct kernel_call *call)
{
    real loss = input_data(call, 0)[0];
    real *best_loss = output_data(call, 0);
    if (!(loss < *best_loss))
        return;
    *best_loss = loss;
    memcpy(call->output[1].data, call->input[1].data,
           (size_t)tensor_elements(&call->input[1]) * sizeof(real));
}
