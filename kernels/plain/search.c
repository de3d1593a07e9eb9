/* Nonlinear conjugate gradients on the device (Polak-Ribiere+), with a step that is taken back in
 * part where the energy rose. */
#include "kernels/plain/plain.h"

#include <math.h>
#include <string.h>

/* Of a step after which the energy is higher than before. */
static const double shortening = 0.25;
/* The energy is a sum in floating point: a rise within its rounding is none. */
static const double energy_tolerance = 1e-6;

static double dot(const real *a, const real *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

static bool accepts(real energy, const real *search)
{
    return isfinite(energy) &&
           (search[SEARCH_FRESH] > 1 ||
            energy <= search[SEARCH_ENERGY] + energy_tolerance * fabs(search[SEARCH_ENERGY]));
}

void PLAIN(search_direction)(const struct kernel_call *call)
{
    const real *g = input_data(call, 1);
    real *previous = output_data(call, 0), *d = output_data(call, 1),
         *search = output_data(call, 2);
    int64_t n = tensor_elements(&call->input[1]);
    real energy = input_data(call, 0)[0];
    search[SEARCH_ACCEPTED] = accepts(energy, search);
    if (!search[SEARCH_ACCEPTED])
        return;
    double square = dot(g, g, n), old = dot(previous, previous, n);
    double beta = search[SEARCH_FRESH] || old == 0 ? 0 : (square - dot(g, previous, n)) / old;
    beta = beta > 0 ? beta : 0;
    double slope = -square + (beta > 0 ? beta * dot(g, d, n) : 0);
    if (slope >= 0) {
        beta = 0;
        slope = -square;
    }
    for (int64_t i = 0; i < n; i++)
        d[i] = (real)((beta > 0 ? beta * d[i] : 0) - g[i]);
    memcpy(previous, g, (size_t)n * sizeof *g);
    search[SEARCH_ENERGY] = energy;
    search[SEARCH_SLOPE] = (real)slope;
    search[SEARCH_FRESH] = 0;
}

void PLAIN(search_step)(const struct kernel_call *call)
{
    const real *d = input_data(call, 2);
    real *z = output_data(call, 0), *base = output_data(call, 1), *search = output_data(call, 2);
    int64_t n = tensor_elements(&call->input[0]);
    real curvature = input_data(call, 3)[0];
    if (search[SEARCH_ACCEPTED]) {
        memcpy(base, z, (size_t)n * sizeof *z);
        search[SEARCH_STEP] = curvature > 0 ? -search[SEARCH_SLOPE] / curvature : 0;
    } else {
        search[SEARCH_STEP] *= (real)shortening;
        search[SEARCH_SHORTENED] += 1;
        search[SEARCH_FRESH] = 1;
    }
    for (int64_t i = 0; i < n; i++)
        z[i] = base[i] + search[SEARCH_STEP] * d[i];
}
