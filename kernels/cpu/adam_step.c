#include "kernels/cpu/math.h"

#include <math.h>

struct adam {
    float *p, *m, *v;
    const float *g;
    float beta1, beta2, rest1, rest2; /* rest: 1 - beta */
    float keep;                       /* what weight decay leaves */
    float size, correction, epsilon;
};

static void step(const struct adam *a, int64_t first, int64_t last)
{
    for (int64_t i = first; i < last; i++) {
        float m = a->beta1 * a->m[i] + a->rest1 * a->g[i];
        float v = a->beta2 * a->v[i] + a->rest2 * (a->g[i] * a->g[i]);
        a->m[i] = m;
        a->v[i] = v;
        a->p[i] = a->keep * a->p[i] - a->size * m / (sqrtf(v) * a->correction + a->epsilon);
    }
}

void ISA_NAME(adam_step)(const struct kernel_call *call)
{
    double beta1 = call->attributes->adam.beta1, beta2 = call->attributes->adam.beta2;
    double rate = call->attributes->adam.learning_rate;
    int32_t *count = call->output[3].data;
    *count += 1;
    struct adam a = {.p = call->output[0].data,
                     .m = call->output[1].data,
                     .v = call->output[2].data,
                     .g = call->input[1].data,
                     .beta1 = (float)beta1,
                     .beta2 = (float)beta2,
                     .rest1 = (float)(1 - beta1),
                     .rest2 = (float)(1 - beta2),
                     .keep = (float)(1 - rate * call->attributes->adam.weight_decay),
                     .size = (float)(rate / (1 - pow(beta1, *count))),
                     .correction = (float)(1 / sqrt(1 - pow(beta2, *count))),
                     .epsilon = (float)call->attributes->adam.epsilon};
    int64_t n = tensor_elements(&call->input[0]);
#pragma omp parallel for num_threads(threads_for(call, n))
    for (int64_t first = 0; first < n; first += UNIT_ELEMENTS)
        step(&a, first, n - first < UNIT_ELEMENTS ? n : first + UNIT_ELEMENTS);
}
