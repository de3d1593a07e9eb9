/* The deviation of a measurement's white noise, from the measurement alone: for solvers that stop at
 * it when nobody gives it. */
#ifndef OPERATORS_NOISE_LEVEL_H
#define OPERATORS_NOISE_LEVEL_H

#include "runtime/status.h"

#include <stdint.h>

/* measurement [N,C,H,W]. The median absolute second difference along rows, and along rows and
 * columns together (Immerkaer, "Fast noise variance estimation", 1996), each scaled to what white
 * Gaussian noise would give; the smaller of the two, since detail that one sees the other may not.
 * What structure they leave makes it too high rather than too low. NaN where rows have fewer than
 * three entries. */
double noise_level_estimate(const float *measurement_nchw, const int64_t shape[4],
                            struct status *status);

#endif
