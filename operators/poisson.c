#include "operators/poisson.h"

#include <math.h>

/* Below this the product of uniforms is quick and does not underflow. */
static const double small_mean = 30;

/* Counts how many uniforms it takes for their product to fall below exp(-mean). */
static double draw_small(struct draws *draws, double mean)
{
    double limit = exp(-mean), product = draws_uniform(draws), count = 0;
    while (product > limit) {
        product *= draws_uniform(draws);
        count++;
    }
    return count;
}

/* Hörmann's transformed rejection with squeeze, PTRS ("The transformed rejection method for
 * generating Poisson random variables", 1993). */
static double draw_large(struct draws *draws, double mean)
{
    double b = 0.931 + 2.53 * sqrt(mean), a = -0.059 + 0.02483 * b;
    double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), v_r = 0.9277 - 3.6224 / (b - 2);
    for (;;) {
        double u = draws_uniform(draws) - 0.5, v = draws_uniform(draws);
        double us = 0.5 - fabs(u), k = floor((2 * a / us + b) * u + mean + 0.43);
        if (us >= 0.07 && v <= v_r)
            return k;
        if (k < 0 || (us < 0.013 && v > us))
            continue;
        if (log(v) + log(inverse_alpha) - log(a / (us * us) + b) <=
            -mean + k * log(mean) - lgamma(k + 1))
            return k;
    }
}

double poisson_draw(struct draws *draws, double mean)
{
    return mean < small_mean ? draw_small(draws, mean) : draw_large(draws, mean);
}

void poisson_noise(float *y, int64_t elements, double rate, uint64_t seed, uint32_t stream)
{
    for (int64_t i = 0; i < elements; i++) {
        struct draws draws = draws_begin(seed, stream, (uint32_t)i + 1);
        double u = fmin(1, fmax(0, 0.5 * ((double)y[i] + 1)));
        double noisy = poisson_draw(&draws, 255 * rate * u) / (255 * rate);
        y[i] = (float)fmin(1, fmax(-1, 2 * noisy - 1));
    }
}
