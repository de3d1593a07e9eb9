#include "kernels/plain/plain.h"

#include <math.h>

void PLAIN(adam_step)(const struct kernel_call *call)
{
    const real *g = input_data(call, 1);
    real *p = output_data(call, 0), *m = output_data(call, 1), *v = output_data(call, 2);
    int32_t *step = call->output[3].data;
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    double rate = call->attributes->adam.learning_rate;
    *step += 1;
    double size = rate / (1 - pow(beta1, *step)), correction = sqrt(1 - pow(beta2, *step));
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++) {
        m[i] = (real)(beta1 * m[i] + (1 - beta1) * g[i]);
        v[i] = (real)(beta2 * v[i] + (1 - beta2) * g[i] * g[i]);
        double decayed = p[i] * (1 - rate * call->attributes->adam.weight_decay);
        double denominator = sqrt(v[i]) / correction + call->attributes->adam.epsilon;
        p[i] = (real)(decayed - size * m[i] / denominator);
    }
}

void PLAIN(adamw_step)(const struct kernel_call *call)
{
    const real *g = input_data(call, 1), *control = input_data(call, 4);
    real *p = output_data(call, 0), *m = output_data(call, 1), *v = output_data(call, 2);
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    double rate = control[OPTIMISER_LEARNING_RATE], scale = control[OPTIMISER_SCALE];
    double clip = control[OPTIMISER_CLIP], norm = sqrt(input_data(call, 5)[0]) * scale;
    if (!isfinite(norm))
        return;
    if (clip > 0 && norm > clip)
        scale *= clip / (norm + 1e-6);
    double size = rate / control[OPTIMISER_CORRECTION1];
    double correction = sqrt(control[OPTIMISER_CORRECTION2]);
    for (int64_t i = 0; i < tensor_elements(&call->input[0]); i++) {
        double gradient = scale * g[i];
        m[i] = (real)(beta1 * m[i] + (1 - beta1) * gradient);
        v[i] = (real)(beta2 * v[i] + (1 - beta2) * gradient * gradient);
        double decayed = p[i] * (1 - rate * call->attributes->adam.weight_decay);
        double denominator = sqrt(v[i]) / correction + call->attributes->adam.epsilon;
        p[i] = (real)(decayed - size * m[i] / denominator);
    }
}
