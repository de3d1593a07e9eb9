/* Poisson noise: P(255*rate*u)/(255*rate) for u = clamp((y+1)/2, 0, 1), back to [-1,1]
 * (operators.md section 8). Element i's number depends on (seed, i) alone. */
#ifndef OPERATORS_POISSON_H
#define OPERATORS_POISSON_H

#include "operators/draws.h"

double poisson_draw(struct draws *draws, double mean);
void poisson_noise(float *y, int64_t elements, double rate, uint64_t seed, uint32_t stream);

#endif
