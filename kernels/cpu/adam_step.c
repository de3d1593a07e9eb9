#include "kernels/cpu/math.h"

#include <math.h>

struct adam {
    float *p, *m, *v;
    const float *g;
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float keep;                       /* what weight decay leaves */
    float size, correction, epsilon;
    float scale; /* of g */
};

ALWAYS_INLINE void step(const struct adam *a, int64_t first, int64_t last, bool scaled)
{
    for (int64_t i = first; i < last; i++) {
        float g = scaled ? a->scale * a->g[i] : a->g[i];
        float m = a->beta1 * a->m[i] + a->rest1 * g;
        float v = a->beta2 * a->v[i] + a->rest2 * (g * g);
        a->m[i] = m;
        a->v[i] = v;
        a->p[i] = a->keep * a->p[i] - a->size * m / (sqrtf(v) * a->correction + a->epsilon);
    }
}

/* corrections: 1 - beta^t */
static struct adam adam_of(const struct kernel_call *call, double rate, double correction1,
                           double correction2, double scale)
{
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    return (struct adam){.p = call->output[0].data,
                         .m = call->output[1].data,
                         .v = call->output[2].data,
                         .g = call->input[1].data,
                         .beta1 = (float)beta1,
                         .beta2 = (float)beta2,
                         .rest1 = (float)(1 - beta1),
                         .rest2 = (float)(1 - beta2),
                         .keep = (float)(1 - rate * call->attributes->adam.weight_decay),
                         .size = (float)(rate / correction1),
                         .correction = (float)(1 / sqrt(correction2)),
                         .epsilon = (float)call->attributes->adam.epsilon,
                         .scale = (float)scale};
}

static void update(const struct kernel_call *call, const struct adam *a, bool scaled)
{
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t first = 0; first < n; first += UNIT_ELEMENTS) {
        int64_t last = n - first < UNIT_ELEMENTS ? n : first + UNIT_ELEMENTS;
        if (scaled)
            step(a, first, last, true);
        else
            step(a, first, last, false);
    }
}

void ISA_NAME(adam_step)(const struct kernel_call *call)
{
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    double rate = call->attributes->adam.learning_rate;
    int32_t *count = call->output[3].data;
    *count += 1;
    struct adam a = adam_of(call, rate, 1 - pow(beta1, *count), 1 - pow(beta2, *count), 1);
    update(call, &a, false);
}

void ISA_NAME(adamw_step)(const struct kernel_call *call)
{
    const float *control = call->input[4].data, *squared_norm = call->input[5].data;
    double scale = control[OPTIMISER_SCALE], clip = control[OPTIMISER_CLIP];
    double norm = sqrt(*squared_norm) * scale;
    if (!isfinite(norm))
        return;
    if (clip > 0 && norm > clip)
        scale *= clip / (norm + 1e-6);
    struct adam a = adam_of(call, control[OPTIMISER_LEARNING_RATE], control[OPTIMISER_CORRECTION1],
                            control[OPTIMISER_CORRECTION2], scale);
    update(call, &a, true);
}
